package provisioner

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
)

// golden compares a result with a file in testdata, or rewrites the file:
// UPDATE_GOLDEN=1 go test ./provisioner
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got); UPDATE_GOLDEN=1 rewrites it:\n%s", path, diff)
	}
}

func zones(values ...string) corev1.TopologySelectorTerm {
	return corev1.TopologySelectorTerm{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
		{Key: "topology.kubernetes.io/zone", Values: values},
	}}
}

func TestVolumeInFull(t *testing.T) {
	t.Parallel()
	for file, test := range map[string]struct {
		class func(*storagev1.StorageClass)
		set   map[string]string
		claim func(*corev1.PersistentVolumeClaim)
	}{
		"volume-least.yaml": {},
		"volume-filesystem.yaml": {
			set: map[string]string{
				"monitors": " mon-b.example.com:6789, [2001:db8::1]:6789 ,", "fsType": "xfs",
				"userSecretNamespace": "ceph", "imageFeatures": "layering,exclusive-lock", "dataPool": "data",
			},
			class: func(c *storagev1.StorageClass) {
				c.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimRetain)
				c.MountOptions = []string{"discard", "noatime"}
				c.AllowedTopologies = []corev1.TopologySelectorTerm{zones("a", "b"), zones("c")}
			},
			claim: func(c *corev1.PersistentVolumeClaim) {
				fixture.Requesting("1500Mi")(c)
				c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadOnlyMany}
			},
		},
		"volume-block.yaml": {
			set: map[string]string{"fsType": "xfs", "userId": "", "userSecretName": "", "keyring": "/etc/ceph/keyring"},
			claim: func(c *corev1.PersistentVolumeClaim) {
				fixture.Requesting("10G")(c)
				c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
			},
		},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			class, claim := fixture.Class(test.set), fixture.Claim()
			if test.class != nil {
				test.class(class)
			}
			if test.claim != nil {
				test.claim(claim)
			}
			wantClass, wantClaim := class.DeepCopy(), claim.DeepCopy()
			volume := newWorld(t).provision(t, fixture.Options(class, claim))
			got, err := yaml.Marshal(volume)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, file, got)
			if diff := cmp.Diff(wantClass, class) + cmp.Diff(wantClaim, claim); diff != "" {
				t.Errorf("objects of the library's cache were changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestVolumeDefaultsWithoutValuesInTheClass(t *testing.T) {
	t.Parallel()
	// The API server sets these defaults, but a test may lack them.
	class := fixture.Class(nil)
	class.ReclaimPolicy = nil
	volume := newWorld(t).provision(t, fixture.Options(class, fixture.Claim()))
	if got := volume.Spec.PersistentVolumeReclaimPolicy; got != corev1.PersistentVolumeReclaimDelete {
		t.Errorf("reclaim policy %s", got)
	}
}

func TestVolumeAffinity(t *testing.T) {
	t.Parallel()
	var empty corev1.TopologySelectorTerm
	for name, test := range map[string]struct {
		terms []corev1.TopologySelectorTerm
		want  int
	}{
		"no topology is everywhere":                 {},
		"an empty term is everywhere":               {terms: []corev1.TopologySelectorTerm{empty}},
		"an empty term is ignored":                  {terms: []corev1.TopologySelectorTerm{empty, zones("a")}, want: 1},
		"each term is a place where it can be used": {terms: []corev1.TopologySelectorTerm{zones("a"), zones("b")}, want: 2},
	} {
		affinity := nodeAffinity(test.terms)
		got := 0
		if affinity != nil {
			got = len(affinity.Required.NodeSelectorTerms)
		}
		if got != test.want || (test.want == 0) != (affinity == nil) {
			t.Errorf("%s: %+v, want %d terms", name, affinity, test.want)
		}
	}
}
