package provisioner

import (
	"context"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// The possible contents of classes, claims, secrets and volumes are in the tables of
// parameters_test.go, parameters_wrong_test.go, names_test.go, monitors_test.go,
// claim_test.go, secrets_test.go and delete_edited_test.go. Each row has the whole text of
// the event, or the complete image and volume.

// leastParameters are the required parameters of a class.
var leastParameters = map[string]string{
	"monitors": "10.0.0.1:6789", "adminSecretName": "ceph-admin", "userSecretName": "ceph-user",
}

// absent as a value removes a parameter.
const absent = "\x00absent"

// rawParameters returns leastParameters with changes.
func rawParameters(changes map[string]string) map[string]string {
	raw := maps.Clone(leastParameters)
	maps.Copy(raw, changes)
	maps.DeleteFunc(raw, func(_, value string) bool { return value == absent })
	return raw
}

// leastClass returns a class with leastParameters and changes.
func leastClass(changes map[string]string) *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta:    metav1.ObjectMeta{Name: "rbd"},
		Provisioner:   DefaultName,
		Parameters:    rawParameters(changes),
		ReclaimPolicy: ptr.To(corev1.PersistentVolumeReclaimDelete),
	}
}

// newInputWorld returns a world with the objects that the classes of the tables name.
func newInputWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t,
		fixture.Secret("default", "ceph-admin", map[string]string{"key": fixture.AdminKey}),
		fixture.Secret("default", "ceph.admin.v2", map[string]string{"key": fixture.AdminKey}),
		fixture.Secret("ceph", "ceph-admin", map[string]string{"key": fixture.AdminKey}),
		fixture.Secret("shop", "ceph-user", map[string]string{"key": fixture.UserKey}),
		fixture.Secret("ceph", "ceph-user", map[string]string{"key": fixture.UserKey}),
	)
	w.Ceph.AddPool("rbd")
	return w
}

// wantRejected fails the test unless the claim is rejected with the text and without a
// request to Ceph.
func (w *world) wantRejected(t *testing.T, class *storagev1.StorageClass, claim *corev1.PersistentVolumeClaim, want string) {
	t.Helper()
	w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		t.Errorf("request to Ceph: %s", op)
		return nil
	}
	fixture.Add(t, w.Claims, claim)
	volume, state, err := w.Provision(t.Context(), fixture.Options(class, claim))
	if diff := cmp.Diff(want, fixture.TextOf(err)); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if volume != nil || state != controller.ProvisioningNoChange {
		t.Errorf("state %s, volume %v", state, volume)
	}
	fixture.WantNoKey(t, fixture.TextOf(err))
}

// inClass returns the text of an event about a class.
func inClass(mistakes string) string {
	return "StorageClass rbd is invalid (replace it; the claim will be retried automatically): " + mistakes
}

// outcome is the result of provisioning a claim.
type outcome struct {
	Asked    string // the cluster and the user
	DataPool string
	Image    rbdutil.Image
	Volume   corev1.PersistentVolume
	Events   []string
}

// asLeast returns the result for a plain claim and the least class.
func asLeast() *outcome {
	image := rbdutil.ImageName("1e7f")
	return &outcome{
		Asked: "Ceph at 10.0.0.1:6789 as client.admin",
		Image: rbdutil.Image{
			ImageRef: rbdutil.ImageRef{Pool: "rbd", Name: image},
			Size:     1 << 30, Features: rbdutil.Layering, ObjectSize: 4 << 20,
			Record: fixture.Record(1 << 30),
		},
		Volume: corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{
				Name: "pvc-1e7f",
				Annotations: map[string]string{
					"volume.kubernetes.io/provisioner-deletion-secret-name":      "ceph-admin",
					"volume.kubernetes.io/provisioner-deletion-secret-namespace": "default",
					"rbd-provisioner.ceph.com/admin-id":                          "admin",
					"imageFormat":                                                "2",
					"imageFeatures":                                              "layering",
				},
			},
			Spec: corev1.PersistentVolumeSpec{
				Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
				AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
				VolumeMode:                    ptr.To(corev1.PersistentVolumeFilesystem),
				PersistentVolumeSource: corev1.PersistentVolumeSource{RBD: &corev1.RBDPersistentVolumeSource{
					CephMonitors: []string{"10.0.0.1:6789"}, RBDPool: "rbd", RBDImage: image,
					RadosUser: "admin", SecretRef: &corev1.SecretReference{Name: "ceph-user"},
				}},
			},
		},
	}
}

// observedImages records the last call of Ensure.
type observedImages struct {
	Images
	cluster rbdutil.Cluster
	spec    rbdutil.ImageSpec
}

func (o *observedImages) Ensure(ctx context.Context, c rbdutil.Cluster, spec rbdutil.ImageSpec) (rbdutil.Image, error) {
	o.cluster, o.spec = c, spec
	return o.Images.Ensure(ctx, c, spec)
}

// wantProvisioned fails the test unless the result for the claim is asLeast with the changes. A
// second call, as after a crash, must have the same result.
func (w *world) wantProvisioned(t *testing.T, class *storagev1.StorageClass, claim *corev1.PersistentVolumeClaim, changes ...func(*outcome)) {
	t.Helper()
	want := asLeast()
	for _, change := range changes {
		change(want)
	}
	observed := &observedImages{Images: w.Images}
	w.Images = observed
	for range 2 {
		volume := w.provision(t, fixture.Options(class, claim))
		got := &outcome{
			Asked: observed.cluster.String(), DataPool: observed.spec.DataPool,
			Image: w.Image(t, observed.spec.ImageRef), Volume: *volume, Events: w.Sent(),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("what came of it (-want +got):\n%s", diff)
		}
	}
	if observed.cluster.Key.Reveal() != fixture.AdminKey {
		t.Error("another key was used")
	}
}

func monitorsAre(monitors ...string) func(*outcome) {
	return func(m *outcome) {
		m.Asked = rbdutil.Cluster{Monitors: monitors, User: "admin"}.String()
		m.Volume.Spec.RBD.CephMonitors = monitors
	}
}

func usersAre(admin, user string) func(*outcome) {
	return func(m *outcome) {
		m.Asked = "Ceph at 10.0.0.1:6789 as client." + admin
		m.Volume.Annotations[annAdminID], m.Volume.Spec.RBD.RadosUser = admin, user
	}
}

func adminSecretIs(namespace, name string) func(*outcome) {
	return func(m *outcome) {
		m.Volume.Annotations[annDeletionSecretNamespace], m.Volume.Annotations[annDeletionSecretName] = namespace, name
	}
}

func userSecretIs(secret *corev1.SecretReference) func(*outcome) {
	return func(m *outcome) { m.Volume.Spec.RBD.SecretRef = secret }
}

func keyringIs(keyring string) func(*outcome) {
	return func(m *outcome) { m.Volume.Spec.RBD.Keyring = keyring }
}

func poolIs(pool string) func(*outcome) {
	return func(m *outcome) { m.Image.Pool, m.Volume.Spec.RBD.RBDPool = pool, pool }
}

func dataPoolIs(pool string) func(*outcome) {
	return func(m *outcome) { m.DataPool, m.Image.Features = pool, m.Image.Features|1<<7 }
}

func featuresAre(features rbdutil.Features, names string) func(*outcome) {
	return func(m *outcome) { m.Image.Features, m.Volume.Annotations["imageFeatures"] = features, names }
}

func objectsOf(bytes uint64) func(*outcome) {
	return func(m *outcome) { m.Image.ObjectSize = bytes }
}

func fsTypeIs(fsType string) func(*outcome) {
	return func(m *outcome) { m.Volume.Spec.RBD.FSType = fsType }
}

func sizeIs(bytes uint64, capacity string) func(*outcome) {
	return func(m *outcome) {
		m.Image.Size, m.Image.Record.Size = bytes, bytes
		m.Volume.Spec.Capacity[corev1.ResourceStorage] = resource.MustParse(capacity)
	}
}

func retentionIs(text string) func(*outcome) {
	return func(m *outcome) { m.Volume.Annotations[annTrashRetention] = text }
}

// unchanged is for rows with the result of asLeast.
func unchanged(*outcome) {}
