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

// copies are those that run. They outlive whoever has begun them; what the end of the
// process cuts off, whoever asks for it next begins where it was.
type copies struct {
	mu      sync.Mutex
	running map[string]*running
}

// running is one of them. err is written before done is closed.
type running struct {
	done chan struct{}
	err  error
}

// do has the copy of that name made, and returns what came of it, or ErrCopying while
// nothing has.
func (k *copies) do(ctx context.Context, name string, makeCopy func(context.Context) error) error {
	r := k.begin(ctx, name, makeCopy)
	if r == nil {
		return fmt.Errorf("%w: others come first, %d at a time", ErrCopying, maxCopies)
	}
	timer := time.NewTimer(copyPatience)
	defer timer.Stop()
	select {
	case <-r.done:
		return r.err
	case <-timer.C:
	case <-ctx.Done():
	}
	return fmt.Errorf("%w: the bigger the source, the longer it takes", ErrCopying)
}

// begin returns the copy that runs, or nil if there is no room for it.
func (k *copies) begin(ctx context.Context, name string, makeCopy func(context.Context) error) *running {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.running[name]; r != nil {
		return r
	}
	if len(k.running) >= maxCopies {
		return nil
	}
	if k.running == nil {
		k.running = map[string]*running{}
	}
	r := &running{done: make(chan struct{})}
	k.running[name] = r
	go func() {
		r.err = makeCopy(context.WithoutCancel(ctx))
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.running, name)
		close(r.done)
	}()
	return r
}
