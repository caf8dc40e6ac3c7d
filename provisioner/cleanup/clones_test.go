package cleanup

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
)

// The clone needs neither the claim nor the volume of its source.
func TestCloneOutlivesItsSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	claim := fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.Name, c.UID = "db", "db-uid" })
	volume := fixture.Provision(t, w, fixture.Options(fixture.Class(nil), claim))
	fixture.Bind(claim, volume)
	fixture.Add(t, w.Claims, claim)
	fixture.Add(t, w.Volumes, volume)
	clone := fixture.Provision(t, w, fixture.Options(fixture.Class(nil), fixture.Claim(fixture.CloneOf("db"))))
	if err := w.Claims.Delete(claim); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), w.Release(t, volume)); err != nil {
		t.Fatal(err)
	}
	w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
	if err := w.Delete(t.Context(), w.Release(t, clone)); err != nil {
		t.Fatal(err)
	}
	w.Remove(t, volume.Name, clone.Name)
	w.cleanTrash(t)
	if diff := cmp.Diff([]string{}, w.Ceph.TrashedNames()); diff != "" {
		t.Errorf("in the trash (-want +got):\n%s", diff)
	}
}
