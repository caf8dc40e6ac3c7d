package provisioner

import (
	"crypto/md5"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	csitranslation "k8s.io/csi-translation-lib"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
)

// migrated returns the volume that nodes get if CSIMigrationRBD is enabled.
func migrated(t *testing.T, volume *corev1.PersistentVolume) *corev1.PersistentVolume {
	t.Helper()
	translator := csitranslation.New()
	if !translator.IsPVMigratable(volume) {
		t.Fatal("the volume cannot be migrated")
	}
	csi, err := translator.TranslateInTreePVToCSI(volume.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	return csi
}

func TestVolumeMigratesToCSI(t *testing.T) {
	t.Parallel()
	const uid = "0b5c9f1e-5b3c-4a2d-9f57-3d4a0a3c8f11"
	claim := fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.UID = uid })
	class := fixture.Class(map[string]string{
		"monitors": "mon-b:6789, 10.0.0.1:6789", "fsType": "xfs", "imageFeatures": "layering,exclusive-lock", "userSecretNamespace": "ceph",
	})
	volume := newWorld(t).provision(t, fixture.Options(class, claim))
	csi := migrated(t, volume)

	hash := md5.Sum([]byte("mon-b:6789,10.0.0.1:6789"))
	clusterID := hex.EncodeToString(hash[:])
	secret := &corev1.SecretReference{Name: "user", Namespace: "ceph"}
	want := &corev1.CSIPersistentVolumeSource{
		Driver: "rbd.csi.ceph.com", FSType: "xfs",
		VolumeHandle: "mig_mons-" + clusterID + "_image-" + uid + "_6b756265", // kube, in hexadecimal
		VolumeAttributes: map[string]string{
			"clusterID": clusterID, "staticVolume": "true", "migration": "true", "tryOtherMounters": "true",
			"imageName": "kubernetes-dynamic-pvc-" + uid, "pool": "kube",
			"imageFeatures": "layering,exclusive-lock", "imageFormat": "2", "journalPool": "",
		},
		NodeStageSecretRef: secret, ControllerExpandSecretRef: secret,
	}
	if diff := cmp.Diff(want, csi.Spec.CSI); diff != "" {
		t.Errorf("CSI source (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(volume.Spec.Capacity, csi.Spec.Capacity); diff != "" {
		t.Errorf("capacity (-in-tree +CSI):\n%s", diff)
	}
}

func TestCephCSIFindsTheImageOfAMigratedVolume(t *testing.T) {
	t.Parallel()
	for _, pool := range []string{"kube", "Kube.ssd_1-a", "image-pool"} {
		t.Run(pool, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.Ceph.AddPool(pool)
			claim := fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.UID = "0b5c9f1e-5b3c-4a2d-9f57-3d4a0a3c8f11" })
			volume := w.provision(t, fixture.Options(fixture.Class(map[string]string{"pool": pool}), claim))
			handle := migrated(t, volume).Spec.CSI.VolumeHandle

			// ceph-csi's internal/rbd/migration.go splits it like this.
			parts := strings.SplitN(handle, "_", 4)
			if len(parts) != 4 || parts[0] != "mig" || !strings.HasPrefix(parts[1], "mons-") || !strings.HasPrefix(parts[2], "image-") {
				t.Fatalf("ceph-csi cannot read the handle %q", handle)
			}
			decoded, err := hex.DecodeString(parts[3])
			if err != nil {
				t.Fatal(err)
			}
			got := string(decoded) + "/kubernetes-dynamic-pvc-" + strings.TrimPrefix(parts[2], "image-")
			if !slices.Equal([]string{got}, w.Ceph.Names()) {
				t.Errorf("ceph-csi opens %s, want %v", got, w.Ceph.Names())
			}
		})
	}
}

// For an in-tree class, ceph-csi computes the cluster id from the parameter; for a volume,
// from its list of monitors. Both are equal for a plain list.
func TestClassAndVolumeMigrateToTheSameCluster(t *testing.T) {
	t.Parallel()
	class := fixture.Class(map[string]string{"monitors": "mon-b:6789,10.0.0.1:6789,[2001:db8::1]:6789"})
	volume := newWorld(t).provision(t, fixture.Options(class, fixture.Claim()))
	inTree := &storagev1.StorageClass{Provisioner: "kubernetes.io/rbd", Parameters: class.Parameters}
	translated, err := csitranslation.New().TranslateInTreeStorageClassToCSI("kubernetes.io/rbd", inTree)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := migrated(t, volume).Spec.CSI.VolumeAttributes["clusterID"], translated.Parameters["clusterID"]; got != want {
		t.Errorf("the volume has cluster %s, the class has %s", got, want)
	}
}

// The volume that csi-translation-lib returns has the same image.
func TestMigratedVolumeHasTheImageOfTheVolume(t *testing.T) {
	t.Parallel()
	for _, pool := range []string{"kube", "Kube.ssd_1-a", "image-pool", "möhre"} {
		for _, uid := range []string{"0b5c9f1e-5b3c-4a2d-9f57-3d4a0a3c8f11", "1e7f"} {
			w := newWorld(t)
			w.Ceph.AddPool(pool)
			claim := fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.UID = "x" })
			volume := w.provision(t, fixture.Options(fixture.Class(map[string]string{"pool": pool}), claim))
			volume.Spec.RBD.RBDImage = "kubernetes-dynamic-pvc-" + uid
			csi := migrated(t, volume)
			csi.Spec.CSI.VolumeAttributes = nil // the handle must suffice
			if got := pvindex.Images(csi); !slices.Contains(got, pvindex.Images(volume)[0]) {
				t.Errorf("%s: %v, want %v among them", csi.Spec.CSI.VolumeHandle, got, pvindex.Images(volume)[0])
			}
		}
	}
}
