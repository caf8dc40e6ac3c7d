package rbdutil

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// maxCopies is how many clones are given their data at a time: it is work for Ceph,
// which others are waiting for as well.
const maxCopies = 4

// copyPatience is how long a caller waits for the end of a copy. After that, he comes
// again from time to time.
const copyPatience = 2 * time.Second

// errFlattening is what those are told who come again.
var errFlattening = fmt.Errorf("%w: the bigger the source, the longer it takes", ErrFlattening)

// copies are those that run, and those that have failed when nobody waited any more. They
// outlive whoever has begun them; what the end of the process cuts off, whoever asks for
// it next begins where it was.
type copies struct {
	mu   sync.Mutex
	all  map[string]*makingCopy
	busy int
}

// makingCopy is one of them. err is written before done is closed.
type makingCopy struct {
	done chan struct{}
	err  error
}

// running tells whether the copy of that name is being made right now.
func (k *copies) running(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := k.all[name]
	if m == nil {
		return false
	}
	select {
	case <-m.done:
		return false
	default:
		return true
	}
}

// room tells whether one more copy could begin.
func (k *copies) room() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.busy < maxCopies
}

// do has the copy of that name made, and returns what came of it, or ErrFlattening while
// nothing has.
func (k *copies) do(ctx context.Context, name string, makeCopy func(context.Context) error) error {
	m := k.begin(ctx, name, makeCopy)
	if m == nil {
		return fmt.Errorf("%w: others come first, %d at a time", ErrFlattening, maxCopies)
	}
	timer := time.NewTimer(copyPatience)
	defer timer.Stop()
	select {
	case <-m.done:
		k.forget(name, m)
		return m.err
	case <-timer.C:
	case <-ctx.Done():
	}
	return errFlattening
}

// begin returns the copy of that name, or nil if there is no room for it.
func (k *copies) begin(ctx context.Context, name string, makeCopy func(context.Context) error) *makingCopy {
	k.mu.Lock()
	defer k.mu.Unlock()
	if m := k.all[name]; m != nil {
		return m
	}
	if k.busy >= maxCopies {
		return nil
	}
	if k.all == nil {
		k.all = map[string]*makingCopy{}
	}
	m := &makingCopy{done: make(chan struct{})}
	k.all[name] = m
	k.busy++
	go func() {
		m.err = makeCopy(context.WithoutCancel(ctx))
		k.mu.Lock()
		defer k.mu.Unlock()
		k.busy--
		if m.err == nil {
			delete(k.all, name) // which is to be seen on the image
		}
		close(m.done)
	}()
	return m
}

// forget lets the next one try again.
func (k *copies) forget(name string, m *makingCopy) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all[name] == m {
		delete(k.all, name)
	}
}
