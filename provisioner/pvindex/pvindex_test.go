package pvindex

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
)

// kubeHex is the name of pool kube as csi-translation-lib writes it.
var kubeHex = hex.EncodeToString([]byte("kube"))

func TestVolumesAreIndexedByTheirImages(t *testing.T) {
	t.Parallel()
	const uid = "0b5c9f1e-5b3c-4a2d-9f57-3d4a0a3c8f11"
	hostPath := &corev1.PersistentVolume{}
	hostPath.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/"}
	bare := fixture.CSIVolume("x", "handle", "", "")
	bare.Spec.CSI.VolumeAttributes = nil
	otherDriver := fixture.CSIVolume("x", "0001-2", "kube", "csi-vol-1")
	otherDriver.Spec.CSI.Driver = "rook.rbd.csi.ceph.com"
	for name, test := range map[string]struct {
		volume *corev1.PersistentVolume
		want   []string
	}{
		"in the tree":                        {fixture.RBDVolume("x", "kube", "by-hand"), []string{"kube/by-hand"}},
		"ceph-csi's own":                     {fixture.CSIVolume("x", "0001-0009-rook-ceph-2-1e7f", "kube", "csi-vol-1"), []string{"kube/0001-0009-rook-ceph-2-1e7f", "kube/csi-vol-1"}},
		"ceph-csi's own, of another driver":  {otherDriver, []string{"kube/0001-2", "kube/csi-vol-1"}},
		"static":                             {fixture.CSIVolume("x", "by-hand", "kube", ""), []string{"kube/by-hand"}},
		"static, with the name given twice":  {fixture.CSIVolume("x", "by-hand", "kube", "by-hand"), []string{"kube/by-hand"}},
		"without a pool":                     {fixture.CSIVolume("x", "by-hand", "", "by-hand"), nil},
		"without attributes":                 {bare, nil},
		"migrated":                           {fixture.CSIVolume("x", "mig_mons-0123_image-"+uid+"_"+kubeHex, "", ""), []string{"kube/" + uid, "kube/kubernetes-dynamic-pvc-" + uid}},
		"migrated, with attributes":          {fixture.CSIVolume("x", "mig_mons-0123_image-"+uid+"_"+kubeHex, "kube", "kubernetes-dynamic-pvc-"+uid), []string{"kube/" + uid, "kube/kubernetes-dynamic-pvc-" + uid, "kube/mig_mons-0123_image-" + uid + "_" + kubeHex}},
		"migrated, a name with underscores":  {fixture.CSIVolume("x", "mig_mons-0123_image-my_image-1_"+kubeHex, "", ""), []string{"kube/kubernetes-dynamic-pvc-my_image-1", "kube/my_image-1"}},
		"migrated, a pool that is no number": {fixture.CSIVolume("x", "mig_mons-0123_image-"+uid+"_kube", "", ""), nil},
		"migrated, without a pool":           {fixture.CSIVolume("x", "mig_mons-0123_image-1e7f", "", ""), nil},
		"migrated, without an image":         {fixture.CSIVolume("x", "mig_mons-0123_"+kubeHex, "", ""), nil},
		"another kind of volume":             {hostPath, nil},
		"no source":                          {&corev1.PersistentVolume{}, nil},
	} {
		got, err := Indexers()[byImage](test.volume)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		slices.Sort(got)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if keys, err := Indexers()[byImage](&corev1.Node{}); err == nil {
		t.Errorf("a node gives %q", keys)
	}
}

func FuzzImagesOfMigration(f *testing.F) {
	for _, handle := range []string{
		"", "mig_", "mig_mons-", "mig_mons-_image-_", "mig_mons-0123_image-1e7f_6b756265", "mig_mons-a_image-b_image-c_d_00", "mig_mons-0123_image-1e7f_6b75626",
		"mig_mons-0123_image-_ff", "mig_mons-0123_image-1e7f_", "MIG_mons-0123_image-1e7f_6b756265", "0001-0009-rook-ceph-0000000000000002-1e7f",
	} {
		f.Add(handle)
	}
	f.Fuzz(func(t *testing.T, handle string) {
		refs := imagesOfMigration(handle)
		if refs == nil {
			return
		}
		if len(refs) != 2 || refs[0].Pool != refs[1].Pool || refs[0].Name != "kubernetes-dynamic-pvc-"+refs[1].Name {
			t.Fatalf("%q gives %v", handle, refs)
		}
		// The parts give the same handle again, apart from the monitors and the case of the pool.
		end := "_image-" + refs[1].Name + "_" + hex.EncodeToString([]byte(refs[1].Pool))
		begin, ok := strings.CutPrefix(handle, "mig_mons-")
		if !ok || !strings.HasSuffix(strings.ToLower(begin), strings.ToLower(end)) {
			t.Errorf("%q gives %v", handle, refs)
		}
	})
}
