//go:build e2e

package faults

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// TestWrongCeph edits a volume by hand so that it names another Ceph. Pool, user, key and image
// name are the same there, but the image is another one.
func TestWrongCeph(t *testing.T) {
	r := newRig(t)
	second := r.withSecondCeph(t)
	claim := r.Claim(t, "data", r.sick)
	volume := r.AwaitBound(t, claim)
	image := framework.ImageOf(volume)
	second.copyUser(t, r)
	second.Ceph.CreatePool(t, image.Pool)
	second.importImage(t, image, "somebody's data")

	wrong := r.editVolume(t, volume, second.Monitors)
	r.DeleteClaim(t, claim.Name)
	r.AwaitRepeat(t, r.AwaitEvent(t, wrong, framework.Timeout, "VolumeFailedDelete",
		"image has another owner", "the metadata of "+image.String()+" names no owner"))
	r.WantImage(t, image, true)
	if got := second.exportImage(t, image); got != "somebody's data" {
		t.Errorf("the other Ceph's image has %q", got)
	}

	right := r.editVolume(t, wrong, r.Monitors)
	r.AwaitVolumeGone(t, right)
	r.WantImage(t, image, false)
	second.WantImage(t, image, true)
}

// copyUser creates the user of another Ceph in this one.
func (r *rig) copyUser(t *testing.T, from *rig) {
	t.Helper()
	keyring := filepath.Join(t.TempDir(), "keyring")
	text := from.Ceph.Run(t, "ceph", "auth", "get", "client."+from.User) + "\n"
	if err := os.WriteFile(keyring, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Ceph.Run(t, "ceph", "auth", "import", "-i", keyring)
	t.Cleanup(func() { r.Ceph.Run(t, "ceph", "auth", "rm", "client."+from.User) })
}

func (r *rig) importImage(t *testing.T, image rbdutil.ImageRef, data string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Ceph.Run(t, "rbd", "import", "--no-progress", "--image-feature", "layering", file, image.String())
}

func (r *rig) exportImage(t *testing.T, image rbdutil.ImageRef) string {
	t.Helper()
	return r.Ceph.Run(t, "rbd", "export", "--no-progress", image.String(), "-")
}

// editVolume sets other monitors on a volume. For this, its object is deleted by force and
// created again.
func (r *rig) editVolume(t *testing.T, volume *corev1.PersistentVolume, monitors []string) *corev1.PersistentVolume {
	t.Helper()
	volumes := r.Client.CoreV1().PersistentVolumes()
	if err := volumes.Delete(t.Context(), volume.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	framework.Kubectl(t, "", "patch", "pv", volume.Name, "--type", "merge", "-p", `{"metadata":{"finalizers":null}}`)
	r.AwaitVolumeGone(t, volume)
	edited := volume.DeepCopy()
	edited.ObjectMeta = metav1.ObjectMeta{Name: volume.Name, Annotations: volume.Annotations, Finalizers: volume.Finalizers}
	edited.Spec.RBD.CephMonitors = monitors
	edited, err := volumes.Create(t.Context(), edited, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return edited
}
