package provisioner

import (
	"context"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// purgeLanes is how many images are removed from a pool's trash at a time. One that
// is big and takes hours leaves the other lanes to the others.
const purgeLanes = 4

// purgePause is when it is tried again to remove what could not be removed: a process
// that was killed over it holds an image for half a minute, say.
const purgePause = time.Minute

// TrashPurger removes from a pool's trash what was deleted there.
type TrashPurger interface {
	Purge(ctx context.Context, c rbdutil.Cluster, pool, prefix string, owner rbdutil.Owner) (int, error)
}

// Purger gives the space of deleted images back, behind the back of the volumes that
// had them, which are gone by then. What it does not get done, because the process
// ends, say, the Sweeper lets the next one do.
type Purger struct {
	images TrashPurger
	owner  rbdutil.Owner

	mu    sync.Mutex
	pools map[place]*lanes
}

// NewPurger returns a Purger of what the provisioner of that name has deleted for that
// cluster.
func NewPurger(images TrashPurger, provisioner, clusterID string) *Purger {
	return &Purger{
		images: images, owner: rbdutil.Owner{Provisioner: provisioner, ClusterID: clusterID},
		pools: map[place]*lanes{},
	}
}

// place is a pool, apart from who asks.
type place struct{ monitors, pool string }

func placeOf(c rbdutil.Cluster, pool string) place {
	return place{strings.Join(c.Monitors, ","), pool}
}

// lanes are what runs for one pool.
type lanes struct {
	running int
	// again: something was put into the trash that those who run may have missed.
	again bool
	// later: it will be tried again by itself.
	later bool
}

// Purge empties the trash of a pool, in the background.
func (p *Purger) Purge(ctx context.Context, c rbdutil.Cluster, pool string) {
	at := placeOf(c, pool)
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.pools[at]
	if l == nil {
		l = &lanes{}
		p.pools[at] = l
	}
	if l.running == purgeLanes {
		l.again = true
		return
	}
	l.running++
	// Nobody waits for it, and there is no end to what a big image may take.
	go p.run(context.WithoutCancel(ctx), at, c)
}

func (p *Purger) run(ctx context.Context, at place, c rbdutil.Cluster) {
	logger := klog.FromContext(ctx)
	for {
		purged, err := p.images.Purge(ctx, c, at.pool, imagePrefix, p.owner)
		if err != nil {
			logger.Info("Deleted images stay in the trash for now", "pool", at.pool, "err", err)
			p.later(ctx, at, c)
		}
		if purged > 0 {
			logger.V(2).Info("Removed deleted images from the trash", "pool", at.pool, "images", purged)
		}
		if !p.more(at) {
			return
		}
	}
}

// later tries again after a while, once for all lanes.
func (p *Purger) later(ctx context.Context, at place, c rbdutil.Cluster) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.pools[at]
	if l.later {
		return
	}
	l.later = true
	time.AfterFunc(purgePause, func() {
		p.mu.Lock()
		l.later = false
		p.mu.Unlock()
		p.Purge(ctx, c, at.pool)
	})
}

// more ends a lane unless there may be more to do.
func (p *Purger) more(at place) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.pools[at]
	if l.again {
		l.again = false
		return true
	}
	l.running--
	if l.running == 0 && !l.later {
		delete(p.pools, at)
	}
	return false
}
