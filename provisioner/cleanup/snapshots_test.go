package cleanup

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// The snapshot of a clone that was not created is removed with the claim of the clone.
func TestCollectRemovesSnapshotsOfClonesThatWereNotCreated(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	source, owner := fixture.ImageRef(uidOne), rbdutil.Owner{ClaimUID: uidOne, VolumeName: "pvc-" + uidOne, Provisioner: fixture.Provisioner, ClusterID: "here"}
	if _, err := rbdutil.NewImages(w.Ceph).Ensure(t.Context(), rbdutil.Cluster{}, rbdutil.ImageSpec{
		ImageRef: source, Layout: rbdutil.Layout{Features: rbdutil.Layering}, Size: rbdutil.MiB, Owner: owner,
	}); err != nil {
		t.Fatal(err)
	}
	fixture.Add(t, w.Claims, fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.Name, c.UID = "source", uidOne }))
	fixture.Add(t, w.Claims, fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.Name, c.UID = "awaited", uidTwo }))
	for _, uid := range []string{uidGone, uidTwo} {
		if err := w.Ceph.CreateSnapshot(t.Context(), rbdutil.Cluster{}, source, "rbd-provisioner-for-kubernetes-dynamic-pvc-"+uid); err != nil {
			t.Fatal(err)
		}
	}
	reads := 0
	w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == "get" {
			reads++
		}
		return nil
	}
	for range 2 {
		w.Collect(t.Context())
	}
	if reads != 2 { // the source, and the clone that does not exist
		t.Errorf("%d reads", reads)
	}
	w.Ceph.Before = nil
	if got := w.Image(t, source).Snapshots; len(got) != 1 || !strings.HasSuffix(got[0], uidTwo) {
		t.Errorf("snapshots %q are left", got)
	}
}
