package provisioner

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// emptier is a TrashPurger that says when it is called, and waits until it may go on.
type emptier struct {
	called  chan string // the pool
	proceed chan error

	mu      sync.Mutex
	running map[string]int
	most    int
}

func newEmptier() *emptier {
	return &emptier{called: make(chan string, 100), proceed: make(chan error), running: map[string]int{}}
}

func (e *emptier) Purge(_ context.Context, _ rbdutil.Cluster, pool, prefix string, owner rbdutil.Owner) (int, error) {
	e.mu.Lock()
	e.running[pool]++
	e.most = max(e.most, e.running[pool])
	e.mu.Unlock()
	e.called <- pool + " " + prefix + " " + owner.Provisioner + " " + owner.ClusterID
	err := <-e.proceed
	e.mu.Lock()
	e.running[pool]--
	e.mu.Unlock()
	return 1, err
}

func TestPurgerLetsNobodyWait(t *testing.T) {
	t.Parallel()
	e := newEmptier()
	p := NewPurger(e, "ceph.com/rbd", "here")
	ctx, cancel := context.WithCancel(t.Context())
	p.Purge(ctx, rbdutil.Cluster{Monitors: []string{"mon"}}, "kube")
	cancel() // whoever asked has gone
	if got, want := <-e.called, "kube kubernetes-dynamic-pvc- ceph.com/rbd here"; got != want {
		t.Errorf("purged is %q, want %q", got, want)
	}
	e.proceed <- nil
}

func TestPurgerHasSomeLanesForEachPool(t *testing.T) {
	t.Parallel()
	e := newEmptier()
	p := NewPurger(e, "ceph.com/rbd", "here")
	cluster, other := rbdutil.Cluster{Monitors: []string{"mon"}}, rbdutil.Cluster{Monitors: []string{"elsewhere"}}
	for range 10 * purgeLanes {
		p.Purge(t.Context(), cluster, "kube")
	}
	for range purgeLanes {
		<-e.called
	}
	p.Purge(t.Context(), cluster, "data")
	<-e.called
	p.Purge(t.Context(), other, "kube")
	<-e.called
	// All that came too late for a lane is done by one more look, failures or not.
	for range purgeLanes + 2 {
		e.proceed <- errors.New("no answer")
	}
	<-e.called
	e.proceed <- nil
	select {
	case pool := <-e.called:
		t.Errorf("%s once more, for nothing", pool)
	default:
	}
	if e.mu.Lock(); e.most > purgeLanes+1 { // of both clusters' pools of that name
		t.Errorf("%d at a time, want %d", e.most, purgeLanes)
	}
	e.mu.Unlock()
	// And it is ready for more.
	p.Purge(t.Context(), cluster, "kube")
	<-e.called
	e.proceed <- nil
}
