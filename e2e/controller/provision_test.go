//go:build e2e

package controller

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

func TestAClaimBecomesAVolume(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	class := e.Class(t, "golden", framework.Parameter("fsType", "xfs"), func(class *storagev1.StorageClass) {
		class.MountOptions = []string{"noatime"}
	})
	claim := e.Claim(t, "data", class)
	volume := e.AwaitBound(t, claim)
	wantGolden(t, e, claim, class, volume)

	ref := framework.ImageOf(volume)
	want := framework.ImageInfo{Format: 2, Size: 1 << 30, Features: []string{"layering"}, Order: 22}
	if diff := cmp.Diff(want, e.ImageInfo(t, ref)); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	wantMetadata := map[string]string{"rbd-provisioner.ceph.com/image": fmt.Sprintf(
		`{"claimUID":%q,"claimNamespace":%q,"claimName":"data","volumeName":%q,"provisioner":%q,"clusterID":%q,"imageID":%q,"size":1073741824}`,
		claim.UID, e.Namespace, volume.Name, e.Provisioner, e.Owner(t).ClusterID, imageID(t, e, ref))}
	if diff := cmp.Diff(wantMetadata, e.ImageMetadata(t, ref)); diff != "" {
		t.Errorf("metadata of the image (-want +got):\n%s", diff)
	}
	if watchers := e.Watchers(t, ref); len(watchers) > 0 {
		t.Errorf("watchers %q: no node could map the image", watchers)
	}
	for _, reason := range []string{"Provisioning", "ProvisioningSucceeded"} {
		e.AwaitEvent(t, claim, framework.Timeout, reason)
	}

	e.DeleteClaim(t, claim.Name)
	e.AwaitVolumeGone(t, volume)
	e.WantImage(t, ref, false)
}

// wantGolden compares a volume with the golden file, except for fields that the API server
// sets.
func wantGolden(t *testing.T, e *framework.Env, claim *corev1.PersistentVolumeClaim, class string, volume *corev1.PersistentVolume) {
	t.Helper()
	golden, err := os.ReadFile("testdata/volume.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want corev1.PersistentVolume
	text := os.Expand(string(golden), func(name string) string {
		return map[string]string{
			"UID": string(claim.UID), "NAMESPACE": e.Namespace, "CLASS": class, "POOL": e.Pool, "USER": e.User,
			"PROVISIONER": e.Provisioner, "MONITORS": strings.Join(e.Monitors, ","),
		}[name]
	})
	if err := yaml.UnmarshalStrict([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	got := volume.DeepCopy()
	got.TypeMeta = want.TypeMeta
	got.UID, got.ResourceVersion, got.ManagedFields = "", "", nil
	got.CreationTimestamp = metav1.Time{}
	got.Spec.ClaimRef.ResourceVersion = ""
	got.Status.LastPhaseTransitionTime = nil
	slices.Sort(got.Finalizers)
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("volume (-want +got):\n%s", diff)
	}
	if size := got.Spec.Capacity.Storage().String(); size != "1Gi" {
		t.Errorf("capacity is written as %s, want 1Gi", size)
	}
}

func TestSizesAndModes(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	class := e.Class(t, "sizes", framework.Parameter("fsType", "xfs"))
	both := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadOnlyMany}
	for name, test := range map[string]struct {
		options  []framework.ClaimOption
		capacity string
		bytes    uint64
		mode     corev1.PersistentVolumeMode
		fsType   string
		access   []corev1.PersistentVolumeAccessMode
	}{
		// Sizes are rounded up to whole MiB.
		"odd-size": {
			options:  []framework.ClaimOption{framework.Size("1500M")},
			capacity: "1431Mi", bytes: 1431 << 20, mode: corev1.PersistentVolumeFilesystem, fsType: "xfs",
		},
		"one-byte": {
			options:  []framework.ClaimOption{framework.Size("1")},
			capacity: "1Mi", bytes: 1 << 20, mode: corev1.PersistentVolumeFilesystem, fsType: "xfs",
		},
		"block": {
			options:  []framework.ClaimOption{framework.Block},
			capacity: "1Gi", bytes: 1 << 30, mode: corev1.PersistentVolumeBlock,
		},
		"rwo-and-rox": {
			options:  []framework.ClaimOption{framework.Modes(both...)},
			capacity: "1Gi", bytes: 1 << 30, mode: corev1.PersistentVolumeFilesystem, fsType: "xfs", access: both,
		},
	} {
		claim := e.Claim(t, name, class, test.options...)
		volume := e.AwaitBound(t, claim)
		if test.access == nil {
			test.access = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		}
		if diff := cmp.Diff(test.access, volume.Spec.AccessModes); diff != "" {
			t.Errorf("%s: access modes (-want +got):\n%s", name, diff)
		}
		if got := volume.Spec.Capacity.Storage().String(); got != test.capacity {
			t.Errorf("%s: capacity %s, want %s", name, got, test.capacity)
		}
		if got := e.ImageInfo(t, framework.ImageOf(volume)).Size; got != test.bytes {
			t.Errorf("%s: image of %d bytes, want %d", name, got, test.bytes)
		}
		if got := *volume.Spec.VolumeMode; got != test.mode {
			t.Errorf("%s: mode %s, want %s", name, got, test.mode)
		}
		if got := volume.Spec.RBD.FSType; got != test.fsType {
			t.Errorf("%s: file system %q, want %q", name, got, test.fsType)
		}
	}
}

// TestParametersReachTheImage uses parameters that the predecessors did not have.
func TestParametersReachTheImage(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	data := e.Pool + "-data"
	e.Ceph.Run(t, "ceph", "osd", "pool", "create", data, "8")
	e.Ceph.Run(t, "ceph", "osd", "pool", "application", "enable", data, "rbd")
	e.Cleanup(func(t *testing.T) { e.Ceph.DeletePool(t, data) })
	user := e.User + "-data"
	e.PutSecret(t, "data", e.NewUser(t, user, e.Pool, data).Reveal())
	class := e.Class(t, "features",
		framework.Parameter("adminId", user), framework.Parameter("adminSecretName", "data"),
		framework.Parameter("dataPool", data), framework.Parameter("objectSize", "1Mi"),
		framework.Parameter("imageFeatures", "layering, exclusive-lock,object-map,fast-diff"))
	volume := e.AwaitBound(t, e.Claim(t, "data", class, framework.Size("100Mi")))
	want := framework.ImageInfo{
		Format: 2, Size: 100 << 20, Order: 20, DataPool: data,
		Features: []string{"layering", "exclusive-lock", "object-map", "fast-diff", "data-pool"},
	}
	if diff := cmp.Diff(want, e.ImageInfo(t, framework.ImageOf(volume))); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	if got := volume.Annotations["imageFeatures"]; got != "layering,exclusive-lock,object-map,fast-diff" {
		t.Errorf("annotation imageFeatures is %q", got)
	}
}

func TestTheOldAnnotationNamesTheClass(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	class := e.Class(t, "old")
	volume := e.AwaitBound(t, e.Claim(t, "data", "", framework.ClassByAnnotation(class)))
	if volume.Spec.StorageClassName != class {
		t.Errorf("class %q, want %q", volume.Spec.StorageClassName, class)
	}
	e.WantImage(t, framework.ImageOf(volume), true)
}

// TestAClaimForANodeThatIsGone must be rescheduled.
func TestAClaimForANodeThatIsGone(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	class := e.Class(t, "late", func(class *storagev1.StorageClass) {
		class.VolumeBindingMode = ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
	})
	const selected = "volume.kubernetes.io/selected-node"
	claim := e.Claim(t, "late", class, func(claim *corev1.PersistentVolumeClaim) {
		claim.Annotations = map[string]string{selected: "gone"}
	})
	e.AwaitEvent(t, claim, framework.Timeout, "ProvisioningFailed", `node "gone" not found`)
	e.Await(t, "no node to be selected", framework.Timeout, func(context.Context) error {
		if node, found := e.GetClaim(t, claim.Name).Annotations[selected]; found {
			return fmt.Errorf("it is %s", node)
		}
		return nil
	})
	e.WantImage(t, e.ImageFor(claim), false)
}
