package provisioner

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// Keys as `ceph-authtool --gen-print-key` prints them, in use nowhere.
const (
	adminKeyText = "AQAZ3WpnAAAAABAAyyBqS9+2rC4JdGtDVIlpUQ=="
	userKeyText  = "AQBn3WpnAAAAABAAbTqTp2hWQxKkqGL9yFz5/A=="
)

// world is a Provisioner and all that is around it.
type world struct {
	*Provisioner
	ceph    *rbdfake.Ceph
	client  *fake.Clientset
	classes cache.Indexer
	nodes   cache.Indexer
	claims  cache.Indexer
	volumes cache.Indexer
	events  *record.FakeRecorder
	trash   *notedTrash
}

// notedTrash notes the pools whose trash is to be cleaned, at once or after a volume.
type notedTrash struct{ now, after []string }

func (n *notedTrash) Clean(_ context.Context, _ rbdutil.Cluster, pool string) {
	n.now = append(n.now, pool)
}

func (n *notedTrash) CleanAfter(volume string, _ rbdutil.Cluster, pool string) {
	n.after = append(n.after, volume+" in "+pool)
}

// newWorld has pools kube and data, the secrets that classWith names, and the
// objects given on top.
func newWorld(t *testing.T, objects ...runtime.Object) *world {
	t.Helper()
	client := fake.NewSimpleClientset(append([]runtime.Object{
		secretOf("ceph", "admin", map[string]string{"key": adminKeyText}),
		secretOf("shop", "user", map[string]string{"key": userKeyText}),
	}, objects...)...)
	w := &world{
		ceph:    rbdfake.New("kube", "data"),
		client:  client,
		classes: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}),
		nodes:   cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}),
		claims:  cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}),
		volumes: cache.NewIndexer(cache.MetaNamespaceKeyFunc, VolumeIndexers()),
		events:  record.NewFakeRecorder(10),
		trash:   &notedTrash{},
	}
	w.Provisioner = New(Config{
		Name: DefaultName, ClusterID: "here", Timeout: time.Minute,
		Images: rbdutil.NewImages(w.ceph), Trash: w.trash,
		Secrets: client.CoreV1(), Live: client.CoreV1(), Index: w.volumes,
		Classes: storagelisters.NewStorageClassLister(w.classes),
		Nodes:   corelisters.NewNodeLister(w.nodes),
		Claims:  corelisters.NewPersistentVolumeClaimLister(w.claims),
		Volumes: corelisters.NewPersistentVolumeLister(w.volumes),
		Events:  w.events,
	})
	return w
}

// add puts objects into the lister's indexer.
func add[T runtime.Object](t *testing.T, indexer cache.Indexer, objects ...T) {
	t.Helper()
	for _, object := range objects {
		if err := indexer.Add(object); err != nil {
			t.Fatal(err)
		}
	}
}

// provision asks for the claim's volume and wants it.
func (w *world) provision(t *testing.T, opts controller.ProvisionOptions) *corev1.PersistentVolume {
	t.Helper()
	volume, state, err := w.Provision(t.Context(), opts)
	if err != nil || state != controller.ProvisioningFinished {
		t.Fatalf("Provision: %v, %v", state, err)
	}
	return volume
}

// released makes the volume one that is to be deleted, as the library and the controller
// manager do, and stores it in the API server as it is. The caches do not have it.
func (w *world) released(t *testing.T, volume *corev1.PersistentVolume) *corev1.PersistentVolume {
	t.Helper()
	volume.Annotations[annProvisionedBy] = DefaultName
	volume.UID = types.UID("uid of " + volume.Name)
	if volume.Spec.ClaimRef == nil {
		volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "shop", Name: "www-web-0", UID: "1e7f"}
	}
	volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
	volume.Status.Phase = corev1.VolumeReleased
	w.store(t, volume)
	return volume
}

// store has the API server know the volume as it is.
func (w *world) store(t *testing.T, volume *corev1.PersistentVolume) {
	t.Helper()
	volumes := corev1.SchemeGroupVersion.WithResource("persistentvolumes")
	if err := w.client.Tracker().Update(volumes, volume.DeepCopy(), ""); apierrors.IsNotFound(err) {
		if err := w.client.Tracker().Create(volumes, volume.DeepCopy(), ""); err != nil {
			t.Fatal(err)
		}
	} else if err != nil {
		t.Fatal(err)
	}
}

// sent returns the events so far.
func (w *world) sent() []string {
	var events []string
	for {
		select {
		case e := <-w.events.Events:
			events = append(events, e)
		default:
			return events
		}
	}
}

// secretOf is a Secret with the entries given.
func secretOf(namespace, name string, data map[string]string) *corev1.Secret {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string][]byte{}}
	for key, value := range data {
		secret.Data[key] = []byte(value)
	}
	return secret
}

// classWith is a class that works in a newWorld, with some parameters changed; an
// empty value takes one away.
func classWith(changes map[string]string) *storagev1.StorageClass {
	parameters := map[string]string{
		"monitors": "10.0.0.1:6789,10.0.0.2:6789", "pool": "kube",
		"adminId": "kube", "adminSecretName": "admin", "adminSecretNamespace": "ceph",
		"userId": "node", "userSecretName": "user",
	}
	maps.Copy(parameters, changes)
	maps.DeleteFunc(parameters, func(_, value string) bool { return value == "" })
	return &storagev1.StorageClass{
		ObjectMeta:    metav1.ObjectMeta{Name: "rbd"},
		Provisioner:   DefaultName,
		Parameters:    parameters,
		ReclaimPolicy: ptr.To(corev1.PersistentVolumeReclaimDelete),
	}
}

// claimOf is shop/www-web-0 of 1Gi.
func claimOf(changes ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "www-web-0", UID: "1e7f"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To("rbd"),
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			},
		},
	}
	for _, change := range changes {
		change(claim)
	}
	return claim
}

// optionsFor are what the library hands over for a claim.
func optionsFor(class *storagev1.StorageClass, claim *corev1.PersistentVolumeClaim) controller.ProvisionOptions {
	return controller.ProvisionOptions{StorageClass: class, PVName: "pvc-" + string(claim.UID), PVC: claim}
}

// imageRef is where the image of a claim with the UID is.
func imageRef(uid types.UID) rbdutil.ImageRef {
	return rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-" + string(uid)}
}

// recordFor is the record of the image of claimOf.
func recordFor(size uint64) rbdutil.Record {
	return rbdutil.Record{
		Owner: rbdutil.Owner{
			ClaimUID: "1e7f", ClaimNamespace: "shop", ClaimName: "www-web-0",
			VolumeName: "pvc-1e7f", Provisioner: DefaultName, ClusterID: "here",
		},
		Size: size,
	}
}

// must ends the test unless there is no error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// textOf is the error's text, or nothing.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// wantNoKey wants none of the keys, nor a good part of one, in any text.
func wantNoKey(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		for _, key := range []string{adminKeyText, userKeyText} {
			if strings.Contains(text, key[:12]) || strings.Contains(text, key[len(key)-12:]) {
				t.Errorf("this shows a key: %s", text)
			}
		}
	}
}
