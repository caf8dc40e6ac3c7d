package cleanup

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// maker is the owner that moves images to the trash in a world.
var maker = rbdutil.Owner{Provisioner: fixture.Provisioner, ClusterID: "here"}

// newTrashCleaner returns a TrashCleaner for the world.
func (w *world) newTrashCleaner() *TrashCleaner {
	return NewTrashCleaner(TrashCleanerConfig{
		Images: rbdutil.NewImages(w.Ceph), Maker: maker, Index: w.Volumes, Live: w.Client.CoreV1(),
		Begin: func() (func(), bool) { return func() {}, true }, Events: w.Events,
	})
}

// cleanTrash cleans the trash of pool kube as one worker does.
func (w *world) cleanTrash(t *testing.T) {
	t.Helper()
	if err := cleanAll(t, w.newTrashCleaner()); err != nil {
		t.Error(err)
	}
}

// cleanAll passes through the trash of pool kube until a pass removes no image.
func cleanAll(t *testing.T, cleaner *TrashCleaner) error {
	t.Helper()
	cluster := rbdutil.Cluster{Monitors: []string{"mon"}}
	at := keyOf(cluster, "kube")
	if cleaner.pools[at] == nil {
		cleaner.pools[at] = &poolTrash{busy: sets.New[string](), foreign: sets.New[string]()}
	}
	for {
		if removed, err := cleaner.pass(t.Context(), at, cluster); removed == 0 {
			return err
		}
	}
}

// moveLate moves the volume's image to the trash some time after it has written the record,
// as a Delete does that has timed out.
func (w *world) moveLate(t *testing.T, late time.Duration, how rbdutil.Deletion, maker rbdutil.Owner, keep time.Duration) {
	t.Helper()
	img, err := w.Ceph.Get(t.Context(), rbdutil.Cluster{}, fixture.ImageRef("1e7f"))
	fixture.Must(t, err)
	how.Time = time.Now().Add(-late)
	fixture.Must(t, w.Ceph.MoveToTrash(t.Context(), rbdutil.Cluster{}, img, img.Record.WithDeletion(maker, how), keep))
}

// retained returns the volume with policy Retain.
func retained(volume *corev1.PersistentVolume) *corev1.PersistentVolume {
	volume = volume.DeepCopy()
	volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	return volume
}

// trashRow is an image in the trash, and the state of the volumes.
type trashRow struct {
	move   func(t *testing.T, w *world)                              // nil for Delete
	caches func(v *corev1.PersistentVolume) *corev1.PersistentVolume // nil for no volume
	server func(v *corev1.PersistentVolume) *corev1.PersistentVolume // nil for no volume
	change func(t *testing.T, w *world)                              // before the trash is cleaned

	unwritten   bool   // nothing was written to the image
	live, trash bool   // the image is under its name, in the trash
	gets        int    // of volumes
	event       string // reason and volume
	err         string
}

func TestTrashCleaner(t *testing.T) {
	t.Parallel()
	const image = "kubernetes-dynamic-pvc-1e7f"
	same := func(v *corev1.PersistentVolume) *corev1.PersistentVolume { return v }
	as := func(other *corev1.PersistentVolume) func(*corev1.PersistentVolume) *corev1.PersistentVolume {
		return func(*corev1.PersistentVolume) *corev1.PersistentVolume { return other }
	}
	late := func(late time.Duration) func(t *testing.T, w *world) {
		return func(t *testing.T, w *world) { w.moveLate(t, late, rbdutil.Deletion{}, maker, 0) }
	}
	kept := func(t *testing.T, w *world) { w.moveLate(t, 0, rbdutil.Deletion{}, maker, time.Hour) }
	unused := func(t *testing.T, w *world) { w.moveLate(t, 0, rbdutil.Deletion{Unused: true}, maker, 0) }
	byHand := func(t *testing.T, w *world) { fixture.Must(t, w.Ceph.TrashByHand(fixture.ImageRef("1e7f"))) }
	by := func(change func(*rbdutil.Owner)) func(t *testing.T, w *world) {
		return func(t *testing.T, w *world) {
			other := maker
			change(&other)
			w.moveLate(t, 0, rbdutil.Deletion{}, other, 0)
		}
	}
	taken := func(_ *testing.T, w *world) {
		w.Ceph.Put(rbdutil.Image{ImageRef: fixture.ImageRef("1e7f"), Size: 1 << 20, Record: fixture.Record(1 << 20)})
	}
	unusedTwice := func(t *testing.T, w *world) {
		unused(t, w)
		taken(t, w)
		unused(t, w)
	}
	const restored, inTrash = "ImageRestored pvc-1e7f", "ImageInTrash pvc-1e7f"
	for name, test := range map[string]trashRow{
		"the volume is gone":                                              {gets: 1},
		"the volume is still to be deleted":                               {caches: same, server: same, trash: true},
		"only the API server still has the volume":                        {server: same, trash: true, gets: 1},
		"its policy is Retain":                                            {caches: retained, server: retained, live: true, event: restored},
		"its policy is Retain, and the move took very long":               {move: late(time.Hour), caches: retained, server: retained, live: true, event: restored},
		"the cache does not have the volume":                              {server: retained, live: true, gets: 1, event: restored},
		"the cache does not have the volume, and the move took very long": {move: late(time.Hour), server: retained, live: true, gets: 1, event: restored},
		"in the cache it is still to be deleted":                          {caches: same, server: retained, trash: true},
		"the API server does not answer":                                  {change: func(_ *testing.T, w *world) { w.FailVolumes(errors.New("etcd is slow")) }, trash: true, gets: 1, err: "etcd is slow"},
		"created again under another name":                                {caches: as(fixture.RBDVolume("again", "kube", image)), live: true, event: "ImageRestored again"},
		"created again for ceph-csi":                                      {caches: as(fixture.CSIVolume("again", image, "kube", "")), live: true, event: "ImageRestored again"},
		"created again as a migrated volume":                              {caches: as(fixture.CSIVolume("again", "mig_mons-0_image-1e7f_6b756265", "", "")), live: true, event: "ImageRestored again"},
		"created again over another image":                                {server: as(fixture.RBDVolume("pvc-1e7f", "kube", "by-hand")), gets: 1},

		"its name is taken":                                      {caches: retained, server: retained, change: taken, live: true, trash: true, event: inTrash},
		"its name is taken, and it was never used":               {move: unused, unwritten: true, caches: retained, server: retained, change: taken, live: true},
		"its name is taken, and two attempts were never used":    {move: unusedTwice, unwritten: true, caches: retained, server: retained, change: taken, live: true},
		"it was never used, but a volume has it":                 {move: unused, caches: retained, server: retained, live: true, event: restored},
		"it was never used, and there is no volume":              {move: unused, unwritten: true, gets: 1},
		"it was never used, but holds data":                      {move: unused, trash: true, gets: 1},
		"its retention has not passed":                           {move: kept, trash: true},
		"its retention has not passed, but its policy is Retain": {move: kept, caches: retained, server: retained, live: true, event: restored},
		"its retention has passed":                               {move: kept, change: func(_ *testing.T, w *world) { w.Ceph.ExpireTrash(image) }, gets: 1},
		"an administrator has moved it there":                    {move: byHand, trash: true},
		"an administrator has, but a volume needs it":            {move: byHand, caches: retained, server: retained, live: true, event: restored},
		"an administrator has, long after a failed move of ours": {move: late(time.Hour), trash: true, gets: 1},
		"another cluster has":                                    {move: by(func(o *rbdutil.Owner) { o.ClusterID = "there" }), trash: true},
		"another provisioner has":                                {move: by(func(o *rbdutil.Owner) { o.Provisioner = "example.com/rbd" }), trash: true},
		"another cluster has, but a volume needs it":             {move: by(func(o *rbdutil.Owner) { o.ClusterID = "there" }), caches: retained, server: retained, live: true, event: restored},
		"it is the source of a migration that is prepared": {move: func(t *testing.T, w *world) {
			_, err := w.Ceph.Migrate(fixture.ImageRef("1e7f"))
			fixture.Must(t, err)
			fixture.Must(t, w.Ceph.TrashByHand(rbdutil.ImageRef{Pool: "kube", Name: image + "-migrated"}))
		}, trash: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.run(t)
		})
	}
}

func (row trashRow) run(t *testing.T) {
	w, volume := provisioned(t)
	if !row.unwritten {
		fixture.Must(t, w.Ceph.Write(fixture.ImageRef("1e7f")))
	}
	if row.move != nil {
		row.move(t, w)
	} else {
		fixture.Must(t, w.Delete(t.Context(), volume))
	}
	w.Client.ClearActions()
	if row.caches != nil {
		fixture.Add(t, w.Volumes, row.caches(volume))
	}
	fixture.Must(t, w.Client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("persistentvolumes"), "", volume.Name))
	if row.server != nil {
		w.Store(t, row.server(volume))
	}
	if row.change != nil {
		row.change(t, w)
	}
	if err := cleanAll(t, w.newTrashCleaner()); fixture.TextOf(err) != row.err {
		t.Errorf("error %v, want %s", err, row.err)
	}
	if n := w.VolumeGets(); n != row.gets {
		t.Errorf("%d GETs of volumes, want %d", n, row.gets)
	}
	live, trash := len(w.Ceph.Names()) > 0, len(w.Ceph.TrashedNames()) > 0
	if live != row.live || trash != row.trash {
		t.Errorf("under its name: %t, want %t; in the trash: %t, want %t", live, row.live, trash, row.trash)
	}
	if written, err := w.Ceph.HasChanges(t.Context(), rbdutil.Cluster{}, fixture.ImageRef("1e7f"), ""); strings.HasPrefix(row.event, reasonRestored) && (err != nil || !written) {
		t.Errorf("the data of the image is lost: %t, %v", written, err)
	}
	row.wantEvent(t, w.Sent())
}

func (row trashRow) wantEvent(t *testing.T, events []string) {
	t.Helper()
	if row.event == "" {
		if len(events) > 0 {
			t.Errorf("events %q", events)
		}
		return
	}
	reason, volume, _ := strings.Cut(row.event, " ")
	if len(events) != 1 || !strings.HasPrefix(events[0], "Warning "+reason+" image kube/kubernetes-dynamic-pvc-1e7f") {
		t.Fatalf("events %q, want one of %s", events, reason)
	}
	if reason == reasonRestored && !strings.HasSuffix(events[0], "has been restored: volume "+volume+" needs it") {
		t.Errorf("event %s, want one for volume %s", events[0], volume)
	}
}

// The call times out, the policy becomes Retain, and then Ceph completes the move.
func TestMoveIsUndoneIfTheDeletionWasCancelled(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	fixture.Must(t, w.Ceph.Write(fixture.ImageRef("1e7f")))
	fixture.Add(t, w.Volumes, volume)
	w.FailOnce(rbdfake.OpMoveToTrash, true, rbdutil.ErrTimeout) // the move succeeds
	if err := w.Delete(t.Context(), volume); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Fatalf("error %v, want a timeout", err)
	}
	if diff := cmp.Diff(fixture.Trash{After: []string{"pvc-1e7f in kube"}}, *w.Trash); diff != "" {
		t.Errorf("pools whose trash is cleaned (-want +got):\n%s", diff)
	}
	fixture.Add(t, w.Volumes, retained(volume))
	w.Store(t, retained(volume))
	w.cleanTrash(t)
	w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
	if img := w.Image(t, fixture.ImageRef("1e7f")); img.Record.Deleted != nil || img.Size != 1<<30 {
		t.Errorf("image %+v", img)
	}
}

func TestTrashIsNotCleanedWhenNoOperationMayBegin(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	fixture.Must(t, w.Delete(t.Context(), volume))
	w.Remove(t, volume.Name)
	cleaner := w.newTrashCleaner()
	cleaner.Begin = func() (func(), bool) { return nil, false }
	fixture.Must(t, cleanAll(t, cleaner))
	if diff := cmp.Diff([]string{"kube/kubernetes-dynamic-pvc-1e7f"}, w.Ceph.TrashedNames()); diff != "" {
		t.Errorf("in the trash (-want +got):\n%s", diff)
	}
}

// There may be thousands of foreign images.
func TestForeignImagesInTheTrashAreReadOnce(t *testing.T) {
	t.Parallel()
	w, _ := provisioned(t)
	fixture.Must(t, w.Ceph.TrashByHand(fixture.ImageRef("1e7f")))
	reads := 0
	w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpGetTrashed {
			reads++
		}
		return nil
	}
	cleaner := w.newTrashCleaner()
	for range 3 {
		fixture.Must(t, cleanAll(t, cleaner))
	}
	if reads != 1 {
		t.Errorf("read %d times", reads)
	}
	trashed, err := w.Ceph.ListTrash(t.Context(), rbdutil.Cluster{}, "kube")
	fixture.Must(t, err)
	fixture.Must(t, w.Ceph.Restore(t.Context(), rbdutil.Cluster{}, "kube", trashed[0]))
	fixture.Must(t, cleanAll(t, cleaner))
	if known := cleaner.pools[keyOf(rbdutil.Cluster{Monitors: []string{"mon"}}, "kube")].foreign; known.Len() > 0 {
		t.Errorf("%v are remembered, but have left the trash", known)
	}
}

func TestTrashIsRetriedUnlessTheErrorIsPermanent(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err   error
		retry bool
	}{
		"Ceph does not answer":    {rbdutil.ErrTimeout, true},
		"there is no space":       {rbdutil.ErrNoSpace, true},
		"the pool does not exist": {rbdutil.ErrPoolNotFound, false},
		"the key is denied":       {rbdutil.ErrAccessDenied, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.Ceph.Before = func(context.Context, string, rbdutil.Cluster, rbdutil.ImageRef) error { return test.err }
			cleaner, cluster := w.newTrashCleaner(), rbdutil.Cluster{Monitors: []string{"mon"}}
			at := keyOf(cluster, "kube")
			cleaner.pools[at] = &poolTrash{workers: 1, busy: sets.New[string](), foreign: sets.New[string]()}
			cleaner.work(t.Context(), at, cluster)
			if got := cleaner.pools[at]; got.retry != test.retry || got.workers != 0 {
				t.Errorf("retry: %t, want %t; %d workers are left", got.retry, test.retry, got.workers)
			}
		})
	}
}

// blockedTrash reports each listing of a trash, and blocks it.
type blockedTrash struct {
	TrashImages
	called  chan string // the pool
	proceed chan error

	mu      sync.Mutex
	running map[string]int
	most    int
}

func newBlockedTrash() *blockedTrash {
	return &blockedTrash{called: make(chan string, 100), proceed: make(chan error), running: map[string]int{}}
}

func (b *blockedTrash) ListTrash(_ context.Context, c rbdutil.Cluster, pool string) ([]rbdutil.TrashedImage, error) {
	place := c.Monitors[0] + " " + pool
	b.mu.Lock()
	b.running[place]++
	b.most = max(b.most, b.running[place])
	b.mu.Unlock()
	b.called <- place
	err := <-b.proceed
	b.mu.Lock()
	b.running[place]--
	b.mu.Unlock()
	return nil, err
}

func TestCleanReturnsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBlockedTrash()
	cleaner := NewTrashCleaner(TrashCleanerConfig{Images: b})
	ctx, cancel := context.WithCancel(t.Context())
	cleaner.Clean(ctx, rbdutil.Cluster{Monitors: []string{"mon"}}, "kube")
	cancel() // the caller has ended
	if got, want := <-b.called, "mon kube"; got != want {
		t.Errorf("cleaned is %q, want %q", got, want)
	}
	b.proceed <- nil
}

func TestTrashWorkersPerPool(t *testing.T) {
	t.Parallel()
	b := newBlockedTrash()
	cleaner := NewTrashCleaner(TrashCleanerConfig{Images: b})
	cluster, other := rbdutil.Cluster{Monitors: []string{"mon"}}, rbdutil.Cluster{Monitors: []string{"elsewhere"}}
	for range 10 * trashWorkers {
		cleaner.Clean(t.Context(), cluster, "kube")
	}
	for range trashWorkers {
		<-b.called
	}
	cleaner.Clean(t.Context(), cluster, "data")
	<-b.called
	cleaner.Clean(t.Context(), other, "kube")
	<-b.called
	// One more pass covers all calls that found no free worker, also after failures.
	for range trashWorkers + 2 {
		b.proceed <- rbdutil.ErrAccessDenied
	}
	<-b.called
	b.proceed <- nil
	select {
	case pool := <-b.called:
		t.Errorf("needless pass through %s", pool)
	default:
	}
	if b.mu.Lock(); b.most > trashWorkers {
		t.Errorf("%d at a time, want %d", b.most, trashWorkers)
	}
	b.mu.Unlock()
	// A later call starts a worker again.
	cleaner.Clean(t.Context(), cluster, "kube")
	<-b.called
	b.proceed <- nil
}

func TestTrashIsCleanedWhenTheVolumeIsGoneOrRetained(t *testing.T) {
	t.Parallel()
	b := newBlockedTrash()
	w, kept := provisioned(t)
	gone, unrelated := kept.DeepCopy(), kept.DeepCopy()
	gone.Name, unrelated.Name = "gone", "unrelated"
	w.Store(t, gone)
	w.Store(t, unrelated)
	cleaner := NewTrashCleaner(TrashCleanerConfig{Images: b})
	factory := informers.NewSharedInformerFactory(w.Client, 0)
	volumes := factory.Core().V1().PersistentVolumes().Informer()
	fixture.Must(t, cleaner.Watch(t.Context(), volumes))
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	cluster := rbdutil.Cluster{Monitors: []string{"mon"}}
	cleaner.CleanAfter(gone.Name, cluster, "of-gone")
	cleaner.CleanAfter(kept.Name, cluster, "of-kept")
	change := func(volume *corev1.PersistentVolume) {
		t.Helper()
		_, err := w.Client.CoreV1().PersistentVolumes().Update(t.Context(), volume, metav1.UpdateOptions{})
		fixture.Must(t, err)
	}
	kept.Labels = map[string]string{"a": "b"}
	change(kept) // it is still to be deleted
	fixture.Must(t, w.Client.CoreV1().PersistentVolumes().Delete(t.Context(), unrelated.Name, metav1.DeleteOptions{}))
	fixture.Must(t, w.Client.CoreV1().PersistentVolumes().Delete(t.Context(), gone.Name, metav1.DeleteOptions{}))
	if got := <-b.called; got != "mon of-gone" {
		t.Errorf("cleaned is %s", got)
	}
	change(retained(kept))
	if got := <-b.called; got != "mon of-kept" {
		t.Errorf("cleaned is %s", got)
	}
	b.proceed <- nil
	b.proceed <- nil
	if len(cleaner.pending) > 0 {
		t.Errorf("still pending: %v", cleaner.pending)
	}
	cancel()
	factory.Shutdown()
}

// The leader was killed after it moved the image to the trash. Then the policy was set to
// Retain and the volume was deleted. Only its finalizer keeps the image.
func TestFinalizerIsKeptUntilTheTrashWasSearched(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	fixture.Must(t, w.Ceph.Write(fixture.ImageRef("1e7f")))
	fixture.Must(t, w.Delete(t.Context(), volume))
	kept := retained(w.Release(t, volume))
	fixture.Add(t, w.Volumes, kept)
	cleaner := w.newTrashCleaner() // of the next leader
	if err := cleaner.MayRelease(t.Context(), volume.Name); err == nil {
		t.Fatal("the volume may be released while its image is in the trash")
	}
	w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpRestore {
			return rbdutil.ErrNoSpace
		}
		return nil
	}
	if err := cleanAll(t, cleaner); !errors.Is(err, rbdutil.ErrNoSpace) {
		t.Fatalf("error %v", err)
	}
	if err := cleaner.mayReleaseAfterPass(t, kept); err == nil {
		t.Fatal("the volume may be released before its image was restored")
	}
	w.Ceph.Before = nil
	fixture.Must(t, cleanAll(t, cleaner))
	fixture.Must(t, cleaner.mayReleaseAfterPass(t, kept))
	w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
	for name, change := range map[string]func(v *corev1.PersistentVolume){
		"that is to be deleted": func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
		},
		"that is bound":   func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound },
		"of another kind": func(v *corev1.PersistentVolume) { v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{} },
	} {
		other := kept.DeepCopy()
		change(other)
		fixture.Add(t, w.Volumes, other)
		if err := w.newTrashCleaner().MayRelease(t.Context(), volume.Name); err != nil {
			t.Errorf("a volume %s: %v", name, err)
		}
	}
}

// mayReleaseAfterPass calls MayRelease without starting a worker.
func (t *TrashCleaner) mayReleaseAfterPass(tb *testing.T, volume *corev1.PersistentVolume) error {
	tb.Helper()
	cluster := rbdutil.Cluster{Monitors: volume.Spec.RBD.CephMonitors}
	at := keyOf(cluster, volume.Spec.RBD.RBDPool)
	t.mu.Lock()
	t.pools[at] = t.pools[keyOf(rbdutil.Cluster{Monitors: []string{"mon"}}, "kube")]
	t.pools[at].workers, t.pools[at].cluster = trashWorkers, cluster
	t.mu.Unlock()
	return t.MayRelease(tb.Context(), volume.Name)
}

// Two volumes with the same image that are both to be deleted do not block each other. The
// image is kept until both are gone.
func TestImageOfTwoReleasedVolumesIsRemovedWithTheLast(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	other := fixture.RBDVolume("other", "kube", "kubernetes-dynamic-pvc-1e7f")
	other.Status.Phase, other.Spec.PersistentVolumeReclaimPolicy = corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete
	fixture.Add(t, w.Volumes, other)
	if err := w.Delete(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	w.Remove(t, volume.Name)
	w.cleanTrash(t)
	if got := w.Ceph.TrashedNames(); len(got) != 1 {
		t.Errorf("in the trash are %q, want the image of the other volume", got)
	}
	if err := w.Volumes.Delete(other); err != nil {
		t.Fatal(err)
	}
	w.cleanTrash(t)
	if got := w.Ceph.TrashedNames(); len(got) != 0 {
		t.Errorf("in the trash are %q, but both volumes are gone", got)
	}
}
