package app

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/apptest"
	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/leadership"
	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/library"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

func TestAClaimIsProvisionedAndAReleasedVolumeIsDeleted(t *testing.T) {
	c := newCluster(t)
	c.lead(t)
	c.claim(t, exampleClaim("1"))
	volume := c.awaitServed(t, "1")
	if ref := volume.Spec.ClaimRef; ref == nil || ref.UID != "1" || ref.Namespace != "shop" || ref.Name != "www-1" {
		t.Errorf("the volume is for %v", ref)
	}
	if by := volume.Annotations["pv.kubernetes.io/provisioned-by"]; by != "ceph.com/rbd" || volume.Spec.StorageClassName != "rbd" {
		t.Errorf("made by %q for class %q", by, volume.Spec.StorageClassName)
	}
	if diff := cmp.Diff([]string{"external-provisioner.volume.kubernetes.io/finalizer"}, volume.Finalizers); diff != "" {
		t.Errorf("finalizers (-want +got):\n%s", diff)
	}
	c.wantImages(t, "kube/kubernetes-dynamic-pvc-1")
	c.release(t, volume)
	c.awaitVolume(t, watch.Deleted, "1")
	c.wantImages(t)
}

func TestADeletedImageLeavesTheTrashAfterItsVolume(t *testing.T) {
	c := newCluster(t)
	removed := make(chan struct{})
	c.ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpRemoveFromTrash {
			close(removed)
		}
		return nil
	}
	c.lead(t)
	c.claim(t, exampleClaim("1"))
	volume := c.awaitServed(t, "1")
	c.release(t, volume)
	c.awaitVolume(t, watch.Deleted, "1")
	apptest.Await(t, "the removal from the trash", removed)
	if left := c.ceph.TrashedNames(); len(left) > 0 {
		t.Errorf("in the trash: %v", left)
	}
}

// TestAnImageThatIsMovedToTheTrashLateIsRestored: the call to move the image times out, and Ceph moves it
// later. Before that, the owner has changed the reclaim policy to Retain.
func TestAnImageThatIsMovedToTheTrashLateIsRestored(t *testing.T) {
	c := newCluster(t)
	moved, proceed := make(chan struct{}, 1), make(chan struct{})
	failed := false
	c.ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpMoveToTrash && !failed {
			failed = true
			moved <- struct{}{}
			<-proceed
			return rbdutil.ErrTimeout
		}
		return nil
	}
	c.lead(t)
	c.claim(t, exampleClaim("1"))
	c.release(t, c.awaitServed(t, "1"))
	apptest.Await(t, "the move", moved)
	volumes := c.client.CoreV1().PersistentVolumes()
	volume, err := volumes.Get(t.Context(), "pvc-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	if _, err := volumes.Update(t.Context(), volume, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if event := c.awaitEvent(t, "ImageRestored"); event.InvolvedObject.Name != "pvc-1" {
		t.Errorf("event of %s", event.InvolvedObject.Name)
	}
	close(proceed)
	c.wantImages(t, "kube/kubernetes-dynamic-pvc-1")
}

func TestSavingAVolumeIsRetried(t *testing.T) {
	c := newCluster(t)
	refused := 0
	c.client.PrependReactor("create", "persistentvolumes", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		if refused == 5 {
			return false, nil, nil
		}
		refused++
		return true, nil, apierrors.NewInternalError(errors.New("etcd is full"))
	})
	var mu sync.Mutex
	ops := map[string]int{}
	c.ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		mu.Lock()
		defer mu.Unlock()
		if op != rbdfake.OpListTrash { // from garbage collection
			ops[op]++
		}
		return nil
	}
	c.lead(t)
	c.claim(t, exampleClaim("1"))
	event := c.awaitEvent(t, "ProvisioningFailed")
	want := "failed to create PersistentVolume pvc-1: Internal error occurred: etcd is full: will be retried automatically"
	if event.Message != want || event.InvolvedObject.Name != "www-1" {
		t.Errorf("event of %s: %q, want %q", event.InvolvedObject.Name, event.Message, want)
	}
	c.awaitServed(t, "1")
	c.wantImages(t, "kube/kubernetes-dynamic-pvc-1")
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(map[string]int{"create": 1, "update": 1}, ops); diff != "" {
		t.Errorf("calls of Ceph (-want +got):\n%s", diff)
	}
}

func TestTheImageOfADeletedClaimIsNotOrphaned(t *testing.T) {
	c := newCluster(t)
	// The first two attempts time out after the image was created. The claim is deleted during the second
	// attempt, so that the third has only the copy in the library.
	attempts, second := 0, make(chan struct{})
	gone := make(chan struct{})
	c.ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op != rbdfake.OpUpdate {
			return nil
		}
		switch attempts++; attempts {
		case 1:
			return rbdutil.ErrTimeout
		case 2:
			close(second)
			<-gone
			return rbdutil.ErrTimeout
		default:
			return nil
		}
	}
	c.lead(t)
	c.claim(t, exampleClaim("1"))
	apptest.Await(t, "the second attempt", second)
	if err := c.client.CoreV1().PersistentVolumeClaims("shop").Delete(t.Context(), "www-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	close(gone)
	volume := c.awaitVolume(t, watch.Added, "1")
	if volume.Spec.ClaimRef.UID != "1" {
		t.Errorf("the volume is for %v, and would not be released", volume.Spec.ClaimRef)
	}
	c.release(t, volume)
	c.awaitVolume(t, watch.Deleted, "1")
	c.wantImages(t)
}

func TestAVolumeIsDeletedWhenItIsNotInUseAnyMore(t *testing.T) {
	inUse := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}
	inUse.Status.VolumesInUse = []corev1.UniqueVolumeName{"kubernetes.io/rbd/kube:kubernetes-dynamic-pvc-1"}
	c := newCluster(t, inUse)
	c.lead(t)
	c.claim(t, exampleClaim("1"))
	c.release(t, c.awaitServed(t, "1"))
	event := c.awaitEvent(t, "VolumeFailedDelete")
	want := "image is in use: kube/kubernetes-dynamic-pvc-1 is attached to node node-a: the image will be deleted when it is no longer in use"
	if diff := cmp.Diff(want, event.Message); diff != "" || event.InvolvedObject.Name != "pvc-1" {
		t.Errorf("event of %s (-want +got):\n%s", event.InvolvedObject.Name, diff)
	}
	c.wantImages(t, "kube/kubernetes-dynamic-pvc-1")
	free := inUse.DeepCopy()
	free.Status.VolumesInUse = nil
	if _, err := c.client.CoreV1().Nodes().UpdateStatus(t.Context(), free, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.awaitVolume(t, watch.Deleted, "1")
	c.wantImages(t)
}

func TestForeignClaimsAreNotProvisioned(t *testing.T) {
	waiting := exampleClass()
	waiting.Name, waiting.VolumeBindingMode = "rbd-late", ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
	c := newCluster(t, waiting, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}})
	c.lead(t)
	others, unasked, late := exampleClaim("others"), exampleClaim("unasked"), exampleClaim("late")
	others.Annotations["volume.kubernetes.io/storage-provisioner"] = "example.com/nfs"
	unasked.Annotations = nil
	late.Spec.StorageClassName = ptr.To("rbd-late")
	// The one worker processes the claims in order, so the others were processed before the last.
	for _, claim := range []*corev1.PersistentVolumeClaim{others, unasked, late, exampleClaim("ours")} {
		c.claim(t, claim)
	}
	c.awaitServed(t, "ours")
	c.wantImages(t, "kube/kubernetes-dynamic-pvc-ours")
	// The scheduler selects a node for a pod that uses the claim.
	late = late.DeepCopy()
	late.Annotations["volume.kubernetes.io/selected-node"] = "node-a"
	if _, err := c.client.CoreV1().PersistentVolumeClaims("shop").Update(t.Context(), late, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.awaitServed(t, "late")
	c.wantImages(t, "kube/kubernetes-dynamic-pvc-late", "kube/kubernetes-dynamic-pvc-ours")
}

func TestTheLibraryWaitsForTheNodes(t *testing.T) {
	c := newCluster(t)
	c.client.PrependReactor("list", "nodes", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		return true, nil, apierrors.NewInternalError(errors.New("etcd is slow"))
	})
	r := c.newControllers(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.informers.start(ctx)
	for range 3 {
		apptest.Await(t, "the other caches to watch", c.watched)
	}
	cancel()
	if err := r.run(ctx); err != nil {
		t.Error(err)
	}
	if r.library.HasRun() {
		t.Error("the library has run: it would delete volumes that nodes use")
	}
	r.library.Run(ctx) // otherwise its goroutines do not end
	r.informers.factory.Shutdown()
	awaitQuiet(t)
}

func TestRunFailsIfEventHandlersCannotBeAdded(t *testing.T) {
	c := newCluster(t)
	r := c.newControllers(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.informers.start(ctx)
	r.informers.wait(ctx)
	cancel()
	r.informers.factory.Shutdown() // handlers cannot be added any more
	if err := r.run(t.Context()); err == nil || errors.Is(err, leadership.ErrOperationsLeft) {
		t.Errorf("error %v", err)
	}
	if r.library.HasRun() {
		t.Error("the library has run without event handlers")
	}
	r.library.Run(ctx) // otherwise its goroutines do not end
	awaitQuiet(t)
}

func TestAFailureIsRecordedAndRetried(t *testing.T) {
	c := newCluster(t)
	c.ceph.DeletePool("kube")
	c.lead(t)
	c.claim(t, exampleClaim("1"))
	event := c.awaitEvent(t, "ProvisioningFailed")
	want := `failed to provision volume with StorageClass "rbd": open pool kube: pool not found: ` +
		"create pool kube (`ceph osd pool create`, `rbd pool init`) or name another pool in the class"
	if diff := cmp.Diff(want, event.Message); diff != "" || event.InvolvedObject.Name != "www-1" {
		t.Errorf("event of %s (-want +got):\n%s", event.InvolvedObject.Name, diff)
	}
	c.ceph.AddPool("kube")
	c.awaitServed(t, "1")
	c.wantImages(t, "kube/kubernetes-dynamic-pvc-1")
}

func TestRunningOperationsEndAndTheNextLeaderContinues(t *testing.T) {
	c := newCluster(t)
	arrived, proceed := blocking(c.ceph, rbdfake.OpUpdate)
	inFlight, stop := c.lead(t)
	c.claim(t, exampleClaim("1"))
	apptest.Await(t, "the operation", arrived)
	c.claim(t, exampleClaim("2")) // waits for the one worker
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	awaitDraining(inFlight)
	select {
	case <-stopped:
		t.Fatal("stopped while an operation is running")
	default:
	}
	proceed()
	apptest.Await(t, "the stop", stopped)
	c.awaitServed(t, "1")
	c.wantImages(t, "kube/kubernetes-dynamic-pvc-1")
	c.lead(t)
	c.awaitServed(t, "2")
	c.wantImages(t, "kube/kubernetes-dynamic-pvc-1", "kube/kubernetes-dynamic-pvc-2")
}

// TestUnsavedVolumesAreSavedBeforeTheStop: the library would stop without saving them. If the claim is
// deleted before the next leader starts, the image is orphaned.
func TestUnsavedVolumesAreSavedBeforeTheStop(t *testing.T) {
	c := newCluster(t)
	trying, allow := make(chan struct{}, 100), make(chan struct{})
	c.client.PrependReactor("create", "persistentvolumes", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		select {
		case <-allow:
			return false, nil, nil
		default:
			select {
			case trying <- struct{}{}:
			default:
			}
			return true, nil, apierrors.NewInternalError(errors.New("etcd is full"))
		}
	})
	inFlight, stop := c.lead(t)
	c.claim(t, exampleClaim("1"))
	apptest.Await(t, "an attempt to save", trying)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	awaitDraining(inFlight)
	apptest.Await(t, "one more attempt to save", trying)
	select {
	case <-stopped:
		t.Fatal("stopped before a volume was saved")
	default:
	}
	close(allow)
	apptest.Await(t, "the stop", stopped)
	c.awaitVolume(t, watch.Added, "1")
}

// TestTheLibraryOfAStandbyReceivesNoEvents: its queues would grow.
func TestTheLibraryOfAStandbyReceivesNoEvents(t *testing.T) {
	c := newCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	informers := testInformers(t, c.client, 0)
	direct, deferred := make(chan struct{}, 2), make(chan struct{}, 2)
	handler := func(channel chan struct{}) cache.ResourceEventHandler {
		return cache.ResourceEventHandlerFuncs{AddFunc: func(any) { channel <- struct{}{} }}
	}
	for _, informer := range []cache.SharedInformer{informers.claims.Informer(), informers.volumes.Informer()} {
		if _, err := informer.AddEventHandlerWithResyncPeriod(handler(direct), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, informer := range []cache.SharedInformer{informers.libraryClaims, library.ReadOnlyStore{SharedIndexInformer: informers.libraryVolumes}} {
		if _, err := informer.AddEventHandlerWithResyncPeriod(handler(deferred), 0); err != nil {
			t.Fatal(err)
		}
	}
	informers.start(ctx)
	for range 2 {
		apptest.Await(t, "the caches to watch", c.watched)
	}
	c.claim(t, exampleClaim("1"))
	if _, err := c.client.CoreV1().PersistentVolumes().Create(t.Context(), &corev1.PersistentVolume{}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		apptest.Await(t, "claim and volume in the caches", direct)
	}
	if n := len(deferred); n > 0 {
		t.Errorf("%d events were sent to the library of a standby", n)
	}
	if err := informers.attachHandlers(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		apptest.Await(t, "claim and volume", deferred)
	}
	cancel()
	informers.factory.Shutdown()
}

// TestAnOrphanedImageIsRemoved: its claim was deleted while no provisioner was running.
func TestAnOrphanedImageIsRemoved(t *testing.T) {
	c := newCluster(t)
	const uid = "00000000-0000-4000-8000-00000000dead"
	owner := rbdutil.Owner{ClaimUID: uid, ClaimNamespace: "shop", ClaimName: "www-gone", VolumeName: "pvc-" + uid, Provisioner: "ceph.com/rbd"}
	if _, err := rbdutil.NewImages(c.ceph).Ensure(t.Context(), rbdutil.Cluster{}, rbdutil.ImageSpec{
		ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-" + uid}, Size: 1 << 30, Owner: owner,
	}); err != nil {
		t.Fatal(err)
	}
	removed := make(chan struct{})
	c.ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, ref rbdutil.ImageRef) error {
		if op == rbdfake.OpMoveToTrash {
			close(removed)
		}
		return nil
	}
	c.orphanGrace = time.Millisecond
	c.lead(t)
	apptest.Await(t, "the removal", removed)
	c.wantImages(t)
}
