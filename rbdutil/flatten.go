package rbdutil

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// maxCloneDepth is the longest chain of parents. A deeper clone is flattened. The kernel
// client allows 16 (RBD_MAX_PARENT_CHAIN_LEN), and each parent makes reads slower.
const maxCloneDepth = 8

const (
	// maxFlattens is how many clones are flattened at the same time: it is load for Ceph,
	// which serves other clients, too.
	maxFlattens = 4
	// flattenWait is how long a caller waits for the end. After that, it is retried.
	flattenWait = 2 * time.Second
)

var (
	errFlattening      = fmt.Errorf("%w: the larger the source, the longer it takes", ErrFlattening)
	errTooManyFlattens = fmt.Errorf("%w: waiting for other clones, at most %d are flattened at the same time", ErrFlattening, maxFlattens)
)

// flattener flattens clones in the background: a task continues when the context of its
// caller is done. If the process ends, the next task for the clone continues in its place.
type flattener struct {
	mu     sync.Mutex
	tasks  map[string]*flattenTask
	active int
}

// flattenTask flattens one clone. It is removed when it succeeds, as the image then has no
// parent, or when a caller has received its error.
type flattenTask struct {
	done chan struct{}
	err  error // set before done is closed; nil while the task runs
}

// isRunning reports whether the clone is being flattened.
func (f *flattener) isRunning(clone string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	task := f.tasks[clone]
	return task != nil && task.err == nil
}

// isFull reports whether no other task can be started.
func (f *flattener) isFull() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.active >= maxFlattens
}

// run returns the result of the clone's task, which it starts if there is none. While there
// is no result, it returns ErrFlattening.
func (f *flattener) run(ctx context.Context, clone string, flatten func(context.Context) error) error {
	task := f.start(ctx, clone, flatten)
	if task == nil {
		return errTooManyFlattens
	}
	select {
	case <-task.done:
	case <-time.After(flattenWait):
		return errFlattening
	case <-ctx.Done():
		return errFlattening
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tasks[clone] == task {
		delete(f.tasks, clone) // the next caller starts it again
	}
	return task.err
}

// start returns the task of the clone, or nil if there is none and it cannot be started.
func (f *flattener) start(ctx context.Context, clone string, flatten func(context.Context) error) *flattenTask {
	f.mu.Lock()
	defer f.mu.Unlock()
	if task := f.tasks[clone]; task != nil {
		return task
	}
	if f.active >= maxFlattens {
		return nil
	}
	if f.tasks == nil {
		f.tasks = map[string]*flattenTask{}
	}
	task := &flattenTask{done: make(chan struct{})}
	f.tasks[clone] = task
	f.active++
	go func() {
		err := flatten(context.WithoutCancel(ctx))
		f.mu.Lock()
		defer f.mu.Unlock()
		f.active--
		if task.err = err; err == nil {
			delete(f.tasks, clone)
		}
		close(task.done)
	}()
	return task
}

// mustFlatten reports whether the clone must be flattened: its chain of parents is too long,
// or its source has too many snapshots.
func (i *Images) mustFlatten(ctx context.Context, c Cluster, spec ImageSpec, img, source Image) (bool, error) {
	own := snapshotFor(spec.ImageRef)
	others := slices.DeleteFunc(ourSnapshots(source), func(name string) bool { return name == own })
	if img.Parent.Name == own && len(others) >= maxCloneSnapshots {
		return true, nil
	}
	if source.Parent == nil {
		return false, nil // no need to read the chain of parents, which takes long
	}
	depth, err := i.store.CloneDepth(ctx, c, spec.ImageRef)
	return depth > maxCloneDepth, err
}

func flattenKey(c Cluster, ref ImageRef) string { return c.String() + " " + ref.String() }
