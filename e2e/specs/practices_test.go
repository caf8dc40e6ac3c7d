//go:build e2e

package specs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestHandMadeVolumes mounts one image of the provisioner in all the ways that administrators
// used before: in the pod's spec with a keyring on the node, with a Secret, and through a
// volume written by hand. They are the same to the node. Each pod reads the data of the one
// before.
func TestHandMadeVolumes(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	key := e.Ceph.Run(t, "ceph", "auth", "get-key", "client.kube")
	e.PutSecret(t, "ceph-secret", key)
	class := e.Class(t, "kube", framework.Parameter("pool", "kube"), framework.Parameter("fsType", "xfs"),
		framework.Parameter("adminId", "kube"), framework.Parameter("adminSecretName", "ceph-secret"),
		framework.Parameter("userId", "kube"), framework.Parameter("userSecretName", "ceph-secret"))
	ours := e.AwaitBound(t, e.Claim(t, "ours", class))
	image := framework.ImageOf(ours)
	inline := corev1.RBDVolumeSource{
		CephMonitors: e.Monitors, RBDPool: image.Pool, RBDImage: image.Name, FSType: "xfs", RadosUser: "kube",
	}
	withKeyring, withSecret := inline, inline
	withKeyring.Keyring = "/etc/ceph/keyring"
	withSecret.SecretRef = &corev1.LocalObjectReference{Name: "ceph-secret"}
	handMade, claim := handMadeVolume(t, e, ours)
	if diff := cmp.Diff(ours.Spec.RBD, handMade.Spec.RBD); diff != "" {
		t.Errorf("source of our volume and of one made by hand (-ours +by hand):\n%s", diff)
	}

	want := ""
	for _, way := range []struct {
		name  string
		mount framework.PodOption
	}{
		{"ours", framework.Mount("ours")},
		{"practice-1", framework.MountVolume(corev1.VolumeSource{RBD: &withKeyring})},
		{"practice-2", framework.MountVolume(corev1.VolumeSource{RBD: &withSecret})},
		{"practice-3", framework.Mount("by-hand")},
	} {
		if way.name == "practice-3" {
			e.AwaitBound(t, claim)
		}
		pod := e.RunPod(t, way.name, way.mount)
		if _, fsType, _ := mounted(t, e, way.name); fsType != "xfs" {
			t.Errorf("%s: file system %s, want xfs", way.name, fsType)
		}
		wantOneWatcher(t, e, image, pod)
		if got := e.Exec(t, way.name, "touch /data/file; cat /data/file"); got != want {
			t.Errorf("%s: the file has %q, want %q", way.name, got, want)
		}
		e.Exec(t, way.name, "echo "+way.name+" > /data/file")
		want = way.name
		e.DeletePod(t, way.name)
		awaitNoWatcher(t, e, image)
	}
	e.DeleteClaim(t, "by-hand")
	if err := e.Client.CoreV1().PersistentVolumes().Delete(t.Context(), handMade.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.AwaitVolumeGone(t, handMade)
	e.WantImage(t, image, true)
	e.DeleteClaim(t, "ours")
	e.AwaitVolumeGone(t, ours)
	e.WantImage(t, image, false)
}

// handMadeVolume creates a volume for our volume's image, and a claim for it, as administrators
// did by hand. The claim sets an empty class, because there may be a default one. The
// controller manager takes up to 15 s to bind them.
func handMadeVolume(t *testing.T, e *framework.Env, ours *corev1.PersistentVolume) (*corev1.PersistentVolume, *corev1.PersistentVolumeClaim) {
	t.Helper()
	volume, err := e.Client.CoreV1().PersistentVolumes().Create(t.Context(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: e.Namespace + "-pv-volume", Labels: map[string]string{"type": "local"}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{RBD: &corev1.RBDPersistentVolumeSource{
				CephMonitors: e.Monitors, RBDPool: "kube", RBDImage: ours.Spec.RBD.RBDImage, FSType: "xfs",
				RadosUser: "kube", SecretRef: &corev1.SecretReference{Name: "ceph-secret"},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	awaitPhase(t, e, volume, corev1.VolumeAvailable)
	return volume, e.Claim(t, "by-hand", "", func(claim *corev1.PersistentVolumeClaim) { claim.Spec.VolumeName = volume.Name })
}
