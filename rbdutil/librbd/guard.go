package librbd

import (
	"sync"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// imageGuard prevents that two operations run on an image at the same time, unless both
// only read.
type imageGuard struct {
	mu sync.Mutex
	// running counts the operations that read; writing stands for one that changes the image.
	running map[guardKey]int
}

const writing = -1

// guardKey identifies an image, whichever client uses it. The cluster is its list of
// monitors until there is a connection, then its fsid: two lists can name one cluster.
type guardKey struct {
	cluster string
	image   rbdutil.ImageRef
}

// tryLock locks the image for one operation; ok is false if it is in use. A key without an
// image name is a whole pool, which is not locked.
func (g *imageGuard) tryLock(key guardKey, reads bool) (unlock func(), ok bool) {
	if key.image.Name == "" {
		return func() {}, true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := g.running[key]; now == writing || now > 0 && !reads {
		return nil, false
	}
	if g.running == nil {
		g.running = map[guardKey]int{}
	}
	if reads {
		g.running[key]++
	} else {
		g.running[key] = writing
	}
	return func() { g.unlock(key) }, true
}

func (g *imageGuard) unlock(key guardKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running[key]--; g.running[key] <= 0 {
		delete(g.running, key)
	}
}
