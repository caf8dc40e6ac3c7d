package cleanup

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// trashWorkers is how many images of a pool's trash are removed concurrently. A large
// image takes hours, but occupies one worker only.
const trashWorkers = 4

// trashRetry is the interval between retries. For example, the watch of a killed process
// on an image expires after half a minute.
const trashRetry = time.Minute

// TrashImages removes and restores the images in the trash of a pool.
type TrashImages interface {
	Get(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) (rbdutil.Image, error)
	ListTrash(ctx context.Context, c rbdutil.Cluster, pool string) ([]rbdutil.TrashedImage, error)
	GetTrashed(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage) (rbdutil.Record, error)
	RemoveFromTrash(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage, maker rbdutil.Owner) error
	Restore(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage) error
}

// TrashCleanerConfig configures a TrashCleaner.
type TrashCleanerConfig struct {
	Images TrashImages
	// Maker is the provisioner and cluster whose deletions are completed.
	Maker rbdutil.Owner
	// Index is the cache of PersistentVolumes, with pvindex.Indexers.
	Index cache.Indexer
	// Live reads from the API server.
	Live corev1client.PersistentVolumesGetter
	// Begin is called before each removal, and the function that it returns after it. Begin
	// returns false if no removal may begin any more.
	Begin  func() (end func(), ok bool)
	Events record.EventRecorder
}

// TrashCleaner removes deleted images from the trash when no volume needs them and their
// retention has passed. It restores an image that a volume needs: the volume was changed,
// or created again, after its deletion was begun.
type TrashCleaner struct {
	TrashCleanerConfig

	mu    sync.Mutex
	pools map[poolKey]*poolTrash
	// pending are the pools of the volumes whose deletion was begun, by volume name.
	pending map[string]poolAccess
	// cancelled are the volumes whose deletion was begun and whose reclaim policy was then
	// changed. Their images are restored even if the volume is gone in the meantime.
	cancelled map[string]cancellation
	// asked is when MayRelease was first called for a volume.
	asked map[string]time.Time
}

// cancellation is a volume whose deletion was cancelled, and when that was seen.
type cancellation struct {
	volume *corev1.PersistentVolume
	seen   time.Time
}

// cancellationMemory is how long cancellations are remembered. A move to the trash that
// has timed out is not completed later than that.
const cancellationMemory = time.Hour

// NewTrashCleaner returns a TrashCleaner.
func NewTrashCleaner(c TrashCleanerConfig) *TrashCleaner {
	return &TrashCleaner{
		TrashCleanerConfig: c, pools: map[poolKey]*poolTrash{}, pending: map[string]poolAccess{},
		cancelled: map[string]cancellation{}, asked: map[string]time.Time{},
	}
}

// poolTrash is the state of the trash of one pool.
type poolTrash struct {
	workers int
	// again is set if the workers may have missed a new image in the trash.
	again bool
	// retry is set if a retry is scheduled.
	retry bool
	// busy are the ids of the images that a worker handles.
	busy sets.Set[string]
	// foreign are the ids of images that others have moved to the trash.
	foreign sets.Set[string]
	// cluster has the credentials of the last call.
	cluster rbdutil.Cluster
	// searched is the start of the last pass that has seen the whole trash. Unsettled are the
	// names of the images that this pass could not handle.
	searched  time.Time
	unsettled sets.Set[string]
}

// Clean implements provisioner.Trash.
func (t *TrashCleaner) Clean(ctx context.Context, c rbdutil.Cluster, pool string) {
	key := keyOf(c, pool)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[key]
	if p == nil {
		p = &poolTrash{busy: sets.New[string](), foreign: sets.New[string]()}
		t.pools[key] = p
	}
	p.cluster = c
	if p.workers == trashWorkers {
		p.again = true
		return
	}
	p.workers++
	// No caller waits for it, and the removal of a large image has no time limit.
	go t.work(context.WithoutCancel(ctx), key, c)
}

// CleanAfter implements provisioner.Trash.
func (t *TrashCleaner) CleanAfter(volume string, c rbdutil.Cluster, pool string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.cancelled, volume) // its policy is Delete again
	t.pending[volume] = poolAccess{cluster: c, name: pool}
}
