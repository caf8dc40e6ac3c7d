package app

import (
	"context"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/cleanup"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

func newDrainer(t *testing.T) (*drainer, *rbdfake.Ceph) {
	t.Helper()
	ceph, client := rbdfake.New("kube"), fake.NewSimpleClientset(exampleSecret())
	informers := testInformers(t, client, 0)
	images, index := rbdutil.NewImages(ceph), informers.volumes.Informer().GetIndexer()
	// Every volume is to be deleted, in the eyes of the API server.
	client.PrependReactor("get", "persistentvolumes", func(action clienttesting.Action) (bool, apiruntime.Object, error) {
		volume := volumeNamed(action.(clienttesting.GetAction).GetName())
		volume.Spec.PersistentVolumeReclaimPolicy, volume.Status.Phase = corev1.PersistentVolumeReclaimDelete, corev1.VolumeReleased
		return true, volume, nil
	})
	return &drainer{Provisioner: provisioner.New(provisioner.Config{
		Clusters: provisioner.Clusters{
			Provisioner: "ceph.com/rbd", ClusterID: "here", Secrets: client.CoreV1(), Classes: informers.classes.Lister(),
		},
		Timeout: time.Minute,
		Images:  images, Trash: cleanup.NewTrashCleaner(cleanup.TrashCleanerConfig{
			Images: images, Index: index, Live: client.CoreV1(), Events: &record.FakeRecorder{},
			Begin: func() (func(), bool) { return nil, false },
		}),
		Live: client.CoreV1(), Index: index,
		Nodes: informers.nodes.Lister(), Claims: informers.claims.Lister(),
		Events: &record.FakeRecorder{},
	})}, ceph
}

// awaitDraining returns when nothing can begin any more.
func awaitDraining(d *drainer) {
	for d.begin() {
		d.end()
		runtime.Gosched()
	}
}

// wantIgnored wants the library to pass over the object: it looks at the type of the
// error itself, not at what may be wrapped in it.
func wantIgnored(t *testing.T, err error) {
	t.Helper()
	if _, bare := err.(*controller.IgnoredError); !bare { //nolint:errorlint // as the library does it
		t.Errorf("%T %v, want an IgnoredError", err, err)
	}
}

func TestWorkPassesThroughUntilItIsDrained(t *testing.T) {
	t.Parallel()
	d, ceph := newDrainer(t)
	volume, state, err := d.Provision(t.Context(), exampleOptions("1"))
	if err != nil || state != controller.ProvisioningFinished {
		t.Fatalf("Provision: %v, %v", state, err)
	}
	d.saved(volume)
	volume.Spec.ClaimRef = volumeNamed(volume.Name).Spec.ClaimRef
	if err := d.Delete(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	if left := d.drain(t.Context()); left != 0 {
		t.Errorf("%d operations are left of none", left)
	}
	_, state, err = d.Provision(t.Context(), exampleOptions("2"))
	wantIgnored(t, err)
	if state != controller.ProvisioningNoChange {
		t.Errorf("state %v, want %v", state, controller.ProvisioningNoChange)
	}
	wantIgnored(t, d.Delete(t.Context(), volume))
	if names := ceph.Names(); len(names) > 0 {
		t.Errorf("images %v were made while draining", names)
	}
	if !d.SupportsBlock(t.Context()) {
		t.Error("a drainer must support what the Provisioner does")
	}
}

func TestDrainWaitsForWhatRuns(t *testing.T) {
	t.Parallel()
	d, ceph := newDrainer(t)
	arrived, proceed := blocking(ceph, rbdfake.OpCreate)
	provisioned := make(chan *corev1.PersistentVolume, 2)
	for _, options := range []controller.ProvisionOptions{exampleOptions("1"), exampleOptions("2")} {
		go func() {
			volume, _, err := d.Provision(t.Context(), options)
			if err != nil {
				t.Error(err)
			}
			provisioned <- volume
		}()
	}
	await(t, "the first operation", arrived)
	await(t, "the second operation", arrived)
	drained := make(chan int, 1)
	go func() { drained <- d.drain(t.Context()) }()
	awaitDraining(d)
	wantIgnored(t, d.Delete(t.Context(), &corev1.PersistentVolume{}))
	select {
	case left := <-drained:
		t.Fatalf("drained with %d left, though two operations run", left)
	default:
	}
	proceed()
	for range 2 {
		d.saved(await(t, "the volume", provisioned))
	}
	if left := await(t, "the drain", drained); left != 0 {
		t.Errorf("%d operations are left", left)
	}
	if names := ceph.Names(); len(names) != 2 {
		t.Errorf("images %v, want both that had begun", names)
	}
}

func TestAVolumeIsProvisionedOrReservedAndNeverBoth(t *testing.T) {
	t.Parallel()
	d, ceph := newDrainer(t)
	release, ok := d.reserve("pvc-1")
	if !ok {
		t.Fatal("a volume that nobody has cannot be reserved")
	}
	if _, state, err := d.Provision(t.Context(), exampleOptions("1")); err == nil || state != controller.ProvisioningNoChange {
		t.Errorf("what is reserved is provisioned: %v, %v", state, err)
	}
	release()
	arrived, proceed := blocking(ceph, rbdfake.OpCreate)
	ended := make(chan error, 1)
	go func() {
		_, _, err := d.Provision(t.Context(), exampleOptions("1"))
		ended <- err
	}()
	await(t, "the operation", arrived)
	if _, ok := d.reserve("pvc-1"); ok {
		t.Error("what is being provisioned can be reserved")
	}
	proceed()
	if err := await(t, "the end of it", ended); err != nil {
		t.Error(err)
	}
	if _, ok := d.reserve("pvc-1"); ok {
		t.Error("what waits to be saved can be reserved")
	}
	d.saved(volumeNamed("pvc-1"))
	if _, ok := d.reserve("pvc-1"); !ok {
		t.Error("what is saved cannot be reserved")
	}
}

func TestDrainWaitsUntilVolumesAreSaved(t *testing.T) {
	t.Parallel()
	d, _ := newDrainer(t)
	for _, uid := range []types.UID{"1", "2"} {
		if _, _, err := d.Provision(t.Context(), exampleOptions(uid)); err != nil {
			t.Fatal(err)
		}
	}
	d.saved(volumeNamed("pvc-1"))
	drained := make(chan int, 1)
	go func() { drained <- d.drain(t.Context()) }()
	awaitDraining(d)
	d.saved(volumeNamed("pvc-somebody-else's"))
	d.saved(volumeNamed("pvc-1"))
	select {
	case left := <-drained:
		t.Fatalf("drained with %d left, though a volume is not saved", left)
	default:
	}
	d.saved(volumeNamed("pvc-2"))
	if left := await(t, "the drain", drained); left != 0 {
		t.Errorf("%d are left", left)
	}
}

func TestDrainDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	d, ceph := newDrainer(t)
	arrived, proceed := blocking(ceph, rbdfake.OpGet)
	deleted := make(chan error, 1)
	volume, _, err := d.Provision(t.Context(), exampleOptions("1"))
	if err != nil {
		t.Fatal(err)
	}
	d.saved(volume)
	volume.Spec.ClaimRef = volumeNamed(volume.Name).Spec.ClaimRef
	go func() { deleted <- d.Delete(t.Context(), volume) }()
	await(t, "the operation", arrived)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if left := d.drain(ctx); left != 1 {
		t.Errorf("%d operations are left, want the 1 that hangs", left)
	}
	proceed() // and what comes back later does no harm
	if err := await(t, "the deletion", deleted); err != nil {
		t.Error(err)
	}
}

func volumeNamed(name string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "shop", Name: name, UID: "gone"}},
	}
}
