package provisioner

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// trashWorkers is how many images are removed from a pool's trash at a time. One that is
// big and takes hours leaves the other workers to the others.
const trashWorkers = 4

// trashRetry is when it is tried again to remove what could not be removed: a process
// that was killed over it holds an image for half a minute, for example.
const trashRetry = time.Minute

// TrashedImages are the images in the trash of a pool.
type TrashedImages interface {
	Get(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) (rbdutil.Image, error)
	ListTrash(ctx context.Context, c rbdutil.Cluster, pool string) ([]rbdutil.TrashedImage, error)
	GetTrashed(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage) (rbdutil.Record, error)
	RemoveFromTrash(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage, maker rbdutil.Owner) error
	Restore(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage) error
}

// TrashCleanerConfig is what a TrashCleaner needs of its surroundings.
type TrashCleanerConfig struct {
	Images TrashedImages
	// Maker names the provisioner and the cluster whose deletions are completed.
	Maker rbdutil.Owner
	// Index is the cache of PersistentVolumes, with VolumeIndexers.
	Index cache.Indexer
	// Live asks the API server itself.
	Live corev1client.PersistentVolumesGetter
	// Begin is asked before each removal, and its end called after; false when no more are
	// to begin.
	Begin  func() (end func(), ok bool)
	Events record.EventRecorder
}

// TrashCleaner removes deleted images from the trash when no volume needs them and the
// time to keep them has passed. An image that a volume needs is restored: the volume was
// changed, or created again, after the deletion was begun.
type TrashCleaner struct {
	TrashCleanerConfig

	mu    sync.Mutex
	pools map[place]*poolTrash
	// pending are the pools of the volumes whose deletion was begun, by volume name.
	pending map[string]pool
	// rescued are those of them that were then seen with another reclaim policy. Their
	// images are restored even if the volume is gone by then.
	rescued map[string]rescue
	// asked is when it was first asked whether a volume may be released.
	asked map[string]time.Time
}

// rescue is a volume that was to be deleted and then was not, and when that was seen.
type rescue struct {
	volume *corev1.PersistentVolume
	seen   time.Time
}

// rescueMemory is how long it is remembered. A call that has timed out does not complete
// its move later than that.
const rescueMemory = time.Hour

// NewTrashCleaner returns a TrashCleaner.
func NewTrashCleaner(c TrashCleanerConfig) *TrashCleaner {
	return &TrashCleaner{TrashCleanerConfig: c, pools: map[place]*poolTrash{}, pending: map[string]pool{}, rescued: map[string]rescue{}, asked: map[string]time.Time{}}
}

// place is a pool, whoever asks for it.
type place struct{ monitors, pool string }

func placeOf(c rbdutil.Cluster, pool string) place {
	return place{strings.Join(c.Monitors, ","), pool}
}

// poolTrash is what is known of the trash of one pool.
type poolTrash struct {
	workers int
	// again: something came into the trash that the workers may have missed.
	again bool
	// retry: a retry is scheduled.
	retry bool
	// busy are the ids of the images that a worker has taken.
	busy sets.Set[string]
	// foreign are the ids of images that others have moved to the trash.
	foreign sets.Set[string]
	// cluster is how the pool was last reached for.
	cluster rbdutil.Cluster
	// searched is when the last pass began that has seen the whole trash, and unsettled are
	// the names of the images of which it is not known what came of them.
	searched  time.Time
	unsettled sets.Set[string]
}

// Clean implements Trash.
func (t *TrashCleaner) Clean(ctx context.Context, c rbdutil.Cluster, name string) {
	at := placeOf(c, name)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[at]
	if p == nil {
		p = &poolTrash{busy: sets.New[string](), foreign: sets.New[string]()}
		t.pools[at] = p
	}
	p.cluster = c
	if p.workers == trashWorkers {
		p.again = true
		return
	}
	p.workers++
	// Nobody waits for it, and removing a big image takes as long as it takes.
	go t.work(context.WithoutCancel(ctx), at, c)
}

// CleanAfter implements Trash.
func (t *TrashCleaner) CleanAfter(volume string, c rbdutil.Cluster, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.rescued, volume) // its policy was changed once more
	t.pending[volume] = pool{cluster: c, name: name}
}

// work is one worker of a pool.
func (t *TrashCleaner) work(ctx context.Context, at place, c rbdutil.Cluster) {
	logger := klog.FromContext(ctx)
	for {
		removed, err := t.pass(ctx, at, c)
		if removed > 0 {
			logger.V(2).Info("Removed deleted images from the trash", "pool", at.pool, "images", removed)
			continue // one of them may have been the last clone of another
		}
		if err != nil {
			// With a key or pool that is not right any more, the next sweep has a better one.
			useless := errors.Is(err, rbdutil.ErrAccessDenied) || errors.Is(err, rbdutil.ErrPoolNotFound)
			if useless || t.scheduleRetry(ctx, at, c) {
				logger.Info("Failed to remove deleted images from the trash, will retry", "pool", at.pool, "err", err)
			}
		}
		if !t.more(at) {
			return
		}
	}
}

// scheduleRetry tries again after a while, once for all workers. It reports whether that
// was not scheduled before.
func (t *TrashCleaner) scheduleRetry(ctx context.Context, at place, c rbdutil.Cluster) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[at]
	if p.retry {
		return false
	}
	p.retry = true
	time.AfterFunc(trashRetry, func() {
		t.mu.Lock()
		p.retry = false
		t.mu.Unlock()
		t.Clean(ctx, c, at.pool)
	})
	return true
}

// more ends a worker unless there may be more to do.
func (t *TrashCleaner) more(at place) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[at]
	if p.again {
		p.again = false
		return true
	}
	p.workers--
	return false
}

// pass goes once through the trash of a pool. It returns how many images it removed, and
// why others could not be.
func (t *TrashCleaner) pass(ctx context.Context, at place, c rbdutil.Cluster) (int, error) {
	begun := time.Now()
	trashed, err := t.Images.ListTrash(ctx, c, at.pool)
	if err != nil {
		return 0, err
	}
	t.forget(at, trashed)
	removed, unsettled := 0, sets.New[string]()
	var errs []error
	for _, img := range trashed {
		done, settled, err := t.cleanTaken(ctx, at, c, img)
		if !settled {
			unsettled.Insert(img.Name)
		}
		switch {
		case done:
			removed++
		case endsPass(err):
			return removed, err
		case err != nil:
			errs = append(errs, err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pools[at].searched, t.pools[at].unsettled = begun, unsettled
	return removed, errors.Join(errs...)
}

// endsPass reports whether the error would be the same for all other images of the pool.
func endsPass(err error) bool {
	return rbdutil.IsPoolUnavailable(err) || errors.Is(err, rbdutil.ErrAccessDenied) || errors.Is(err, rbdutil.ErrPoolNotFound)
}

// forget drops what is known of images that are not in the trash any more, and of rescues
// long ago.
func (t *TrashCleaner) forget(at place, trashed []rbdutil.TrashedImage) {
	there := sets.New[string]()
	for _, img := range trashed {
		there.Insert(img.ID)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pools[at].foreign = t.pools[at].foreign.Intersection(there)
	maps.DeleteFunc(t.asked, func(_ string, asked time.Time) bool { return time.Since(asked) > rescueMemory })
	maps.DeleteFunc(t.rescued, func(_ string, r rescue) bool { return time.Since(r.seen) > rescueMemory })
}

// cleanTaken cleans one image, unless another worker has taken it. It is settled if it is
// known what came of that.
func (t *TrashCleaner) cleanTaken(ctx context.Context, at place, c rbdutil.Cluster, img rbdutil.TrashedImage) (removed, settled bool, err error) {
	t.mu.Lock()
	p := t.pools[at]
	taken, foreign := p.busy.Has(img.ID), p.foreign.Has(img.ID)
	p.busy.Insert(img.ID)
	t.mu.Unlock()
	if taken {
		return false, false, nil
	}
	end, ok := t.Begin()
	if ok {
		removed, err = t.clean(ctx, c, at.pool, img, foreign)
		end()
	}
	settled = ok && (err == nil || errors.Is(err, rbdutil.ErrForeignImage))
	t.mu.Lock()
	defer t.mu.Unlock()
	p.busy.Delete(img.ID)
	if errors.Is(err, rbdutil.ErrForeignImage) {
		p.foreign.Insert(img.ID)
		err = nil
	}
	if errors.Is(err, rbdutil.ErrNotEmpty) {
		klog.FromContext(ctx).Info("Image in the trash was never used, but holds data, not removing", "pool", at.pool, "image", img.Name, "id", img.ID)
		p.foreign.Insert(img.ID)
		err = nil
	}
	// An image with clones goes with the last of them.
	if errors.Is(err, rbdutil.ErrImageNotFound) || errors.Is(err, rbdutil.ErrHasClones) {
		err = nil
	}
	return removed, settled, err
}
