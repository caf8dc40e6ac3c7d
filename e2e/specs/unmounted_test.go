//go:build e2e

package specs

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// The tests of this file mount nothing, so they need no kernel client. They test the installed
// provisioner: its image, its rights, and its work with the controllers of the cluster.

// sumOf returns the checksum of an image.
func sumOf(t *testing.T, e *framework.Env, image rbdutil.ImageRef) string {
	t.Helper()
	data, err := e.Ceph.Try(t.Context(), "rbd", "export", "--no-progress", image.String(), "-")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// TestTenClaimsAtOnce creates and deletes claims of both volume modes.
func TestTenClaimsAtOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "ten", framework.Parameter("fsType", "xfs"))
	var claims []*corev1.PersistentVolumeClaim
	for i := range 10 {
		mode := corev1.PersistentVolumeFilesystem
		if i%2 == 1 {
			mode = corev1.PersistentVolumeBlock
		}
		claims = append(claims, e.Claim(t, fmt.Sprintf("data-%d", i), class, func(claim *corev1.PersistentVolumeClaim) { claim.Spec.VolumeMode = &mode }))
	}
	var volumes []*corev1.PersistentVolume
	for _, claim := range claims {
		volume := e.AwaitBound(t, claim)
		image := e.ImageFor(claim)
		want := corev1.RBDPersistentVolumeSource{
			CephMonitors: e.Monitors, RBDPool: e.Pool, RBDImage: image.Name, FSType: "xfs", RadosUser: e.User,
			Keyring: "/etc/ceph/keyring", SecretRef: &corev1.SecretReference{Name: framework.UserSecret},
		}
		if *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock {
			want.FSType = ""
		}
		if diff := cmp.Diff(want, *volume.Spec.RBD); diff != "" {
			t.Errorf("source of the volume of %s (-want +got):\n%s", claim.Name, diff)
		}
		wantInfo := framework.ImageInfo{Format: 2, Size: 1 << 30, Features: []string{"layering"}, Order: 22}
		if diff := cmp.Diff(wantInfo, e.ImageInfo(t, image)); diff != "" {
			t.Errorf("image of %s (-want +got):\n%s", claim.Name, diff)
		}
		volumes = append(volumes, volume)
	}
	for i, claim := range claims {
		e.DeleteClaim(t, claim.Name)
		e.AwaitVolumeGone(t, volumes[i])
		e.WantImage(t, e.ImageFor(claim), false)
	}
}

// TestExpansionWithoutAPod expands images. Only the kubelet can expand a file system.
func TestExpansionWithoutAPod(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "growing", framework.Expandable)
	filesystem := e.AwaitBound(t, e.Claim(t, "filesystem", class))
	block := e.AwaitBound(t, e.Claim(t, "block", class, framework.Block))
	for _, volume := range []*corev1.PersistentVolume{filesystem, block} {
		e.RequestSize(t, volume.Spec.ClaimRef.Name, "2Gi")
		e.AwaitVolumeSize(t, volume.Name, "2Gi")
	}
	e.AwaitFileSystemPending(t, "filesystem")
	e.AwaitSize(t, "block", "2Gi", framework.Timeout)
}

// TestClonesWithoutAPod compares the images of a source and its clones, and deletes the source
// first.
func TestClonesWithoutAPod(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "clones")
	source := e.AwaitBound(t, e.Claim(t, "source", class, framework.Size("32Mi")))
	e.Ceph.Write(t, framework.ImageOf(source))
	sum := sumOf(t, e, framework.ImageOf(source))
	var clones []*corev1.PersistentVolume
	for name, options := range map[string][]framework.ClaimOption{
		"same":    {framework.Size("32Mi")},
		"readers": {framework.Size("32Mi"), framework.Modes(corev1.ReadOnlyMany)},
	} {
		clones = append(clones, e.AwaitBound(t, e.Claim(t, name, class, append(options, framework.CloneOf("source"))...)))
	}
	larger := e.AwaitBound(t, e.Claim(t, "larger", class, framework.Size("64Mi"), framework.CloneOf("source")))
	e.DeleteClaim(t, "source")
	e.AwaitVolumeGone(t, source)
	for _, clone := range clones {
		if got := sumOf(t, e, framework.ImageOf(clone)); got != sum {
			t.Errorf("clone %s has sha256 %s, want %s", clone.Spec.ClaimRef.Name, got, sum)
		}
	}
	if size := e.ImageInfo(t, framework.ImageOf(larger)).Size; size != 64<<20 {
		t.Errorf("the larger clone has %d bytes, want 64Mi", size)
	}
}

// TestRetainedImages binds a retained volume to a second claim.
func TestRetainedImages(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "retain", func(class *storagev1.StorageClass) {
		class.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimRetain)
	})
	volume := e.AwaitBound(t, e.Claim(t, "first", class))
	image := framework.ImageOf(volume)
	e.DeleteClaim(t, "first")
	awaitPhase(t, e, volume, corev1.VolumeReleased)
	e.WantImage(t, image, true)
	patch := []byte(`{"spec":{"claimRef":null,"persistentVolumeReclaimPolicy":"Delete"}}`)
	if _, err := e.Client.CoreV1().PersistentVolumes().Patch(t.Context(), volume.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitPhase(t, e, volume, corev1.VolumeAvailable)
	e.AwaitBound(t, e.Claim(t, "second", class, func(claim *corev1.PersistentVolumeClaim) { claim.Spec.VolumeName = volume.Name }))
	e.WantImage(t, image, true)
	e.DeleteClaim(t, "second")
	e.AwaitVolumeGone(t, volume)
	e.WantImage(t, image, false)
}

// TestAScheduledPodGetsItsVolume creates the volume for the node that the scheduler selects. The
// pod need not start.
func TestAScheduledPodGetsItsVolume(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "wait", func(class *storagev1.StorageClass) {
		class.VolumeBindingMode = ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
	})
	claim := e.Claim(t, "data", class)
	e.AwaitEvent(t, claim, framework.Timeout, "WaitForFirstConsumer")
	e.WantImage(t, e.ImageFor(claim), false)
	e.Pod(t, "consumer", framework.Mount("data"))
	e.WantImage(t, framework.ImageOf(e.AwaitBound(t, claim)), true)
}

// TestDeletionAwaitsTheLastWatcher opens an image as a node does.
func TestDeletionAwaitsTheLastWatcher(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	volume := e.AwaitBound(t, e.Claim(t, "data", e.Class(t, "watched")))
	image := framework.ImageOf(volume)
	stop := e.Ceph.Watch(t, image)
	e.DeleteClaim(t, "data")
	e.AwaitEvent(t, volume, framework.Timeout, "VolumeFailedDelete", "image is in use", "the image will be deleted when it is no longer in use")
	e.WantImage(t, image, true)
	stop()
	e.AwaitVolumeGone(t, volume)
	e.WantImage(t, image, false)
}

// TestAllClassesBind has a claim for each way to write a class.
func TestAllClassesBind(t *testing.T) {
	t.Parallel()
	secrets, e := newEnv(t), newEnv(t)
	shared := secrets.Class(t, "shared", framework.Parameter("userSecretNamespace", secrets.Namespace))
	claims := []*corev1.PersistentVolumeClaim{
		e.Claim(t, "kubernetes", e.KubernetesClass(t)),
		e.Claim(t, "retired", e.RetiredClass(t)),
		e.Claim(t, "annotation", "", framework.ClassByAnnotation(e.Class(t, "old"))),
		e.Claim(t, "shared", shared),
	}
	for _, claim := range claims {
		volume := e.AwaitBound(t, claim)
		image := framework.ImageOf(volume)
		e.WantImage(t, image, true)
		if ref := volume.Spec.RBD.SecretRef; claim.Name == "shared" && ref.Namespace != secrets.Namespace {
			t.Errorf("secret reference %v", ref)
		}
		if !slices.Equal(volume.Spec.RBD.CephMonitors, e.Monitors) || !strings.HasPrefix(image.Name, "kubernetes-dynamic-pvc-") {
			t.Errorf("%s: volume with the source %v", claim.Name, volume.Spec.RBD)
		}
	}
}
