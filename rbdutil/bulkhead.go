package rbdutil

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bulkhead is a Store that keeps one pool from sinking the others: at most so many
// operations at a time on each, only one at a time on a pool that has stopped
// answering, and none that waits for one. Whoever calls it from a bounded number of
// workers, which all pools share, gets those workers back.
type Bulkhead struct {
	store    Store
	limit    int
	patience time.Duration

	mu           sync.Mutex
	compartments map[compartmentKey]*compartment
}

// compartmentKey tells apart what may fail apart: clusters, their pools (whose data
// may be on other disks) and users.
type compartmentKey struct{ monitors, user, pool string }

// compartment is one pool's share.
type compartment struct {
	running int
	// progress is when an operation was last answered or let in.
	progress time.Time
	// answer is when an operation was last answered; zero after a silence.
	answer time.Time
	// silence is what the last operation met instead of an answer; nil after an answer.
	silence *Silence
	// changed is closed and replaced whenever an operation ends.
	changed chan struct{}
}

// Silence tells of a pool that does not answer.
type Silence struct {
	Monitors, User, Pool string
	// Err is ErrUnreachable, ErrUnknownMonitor, ErrConnectionLost or ErrTimeout.
	Err error
	// Since is when the silence was first met, Last when it was met again.
	Since, Last time.Time
}

// silenceMemory is how long a silence is told of that nobody runs into any more:
// the claims that did may be gone. It is longer than a claim's longest pause.
const silenceMemory = 5 * time.Minute

var _ Store = (*Bulkhead)(nil)

// waits is how many times the patience an operation waits for room at most: in front of
// a pool that is slow there must not stand all the workers that there are.
const waits = 3

// NewBulkhead lets at most limit operations run on each pool. An operation that finds
// no room waits while others are answered; when none has been for the time of patience,
// or it has waited three times as long, it is refused with ErrPoolUnavailable. Operations that
// take the longer the bigger the image is take no room, nor do they wait.
func NewBulkhead(store Store, limit int, patience time.Duration) *Bulkhead {
	return &Bulkhead{store: store, limit: limit, patience: patience, compartments: map[compartmentKey]*compartment{}}
}

// Create implements Store.
func (b *Bulkhead) Create(ctx context.Context, c Cluster, ref ImageRef, layout Layout) error {
	return b.do(ctx, c, ref.Pool, func() error { return b.store.Create(ctx, c, ref, layout) })
}

// Get implements Store.
func (b *Bulkhead) Get(ctx context.Context, c Cluster, ref ImageRef) (Image, error) {
	var img Image
	err := b.do(ctx, c, ref.Pool, func() (err error) {
		img, err = b.store.Get(ctx, c, ref)
		return err
	})
	return img, err
}

// Update implements Store.
func (b *Bulkhead) Update(ctx context.Context, c Cluster, seen Image, record *Record, size uint64) error {
	return b.do(ctx, c, seen.Pool, func() error { return b.store.Update(ctx, c, seen, record, size) })
}

// RemovePartial implements Store.
func (b *Bulkhead) RemovePartial(ctx context.Context, c Cluster, ref ImageRef) error {
	return b.do(ctx, c, ref.Pool, func() error { return b.store.RemovePartial(ctx, c, ref) })
}

// MoveToTrash implements Store.
func (b *Bulkhead) MoveToTrash(ctx context.Context, c Cluster, seen Image, record Record, keep time.Duration) error {
	return b.do(ctx, c, seen.Pool, func() error { return b.store.MoveToTrash(ctx, c, seen, record, keep) })
}

// ListTrash implements Store.
func (b *Bulkhead) ListTrash(ctx context.Context, c Cluster, pool string) ([]TrashedImage, error) {
	var trashed []TrashedImage
	err := b.do(ctx, c, pool, func() (err error) {
		trashed, err = b.store.ListTrash(ctx, c, pool)
		return err
	})
	return trashed, err
}

// GetTrashed implements Store.
func (b *Bulkhead) GetTrashed(ctx context.Context, c Cluster, pool string, img TrashedImage) (Record, error) {
	var record Record
	err := b.do(ctx, c, pool, func() (err error) {
		record, err = b.store.GetTrashed(ctx, c, pool, img)
		return err
	})
	return record, err
}

// RemoveFromTrash implements Store.
func (b *Bulkhead) RemoveFromTrash(ctx context.Context, c Cluster, pool string, img TrashedImage, maker Owner) error {
	return b.doLengthy(c, pool, func() error { return b.store.RemoveFromTrash(ctx, c, pool, img, maker) })
}

// Restore implements Store.
func (b *Bulkhead) Restore(ctx context.Context, c Cluster, pool string, img TrashedImage) error {
	return b.do(ctx, c, pool, func() error { return b.store.Restore(ctx, c, pool, img) })
}

// List implements Store.
func (b *Bulkhead) List(ctx context.Context, c Cluster, pool string) ([]string, error) {
	var names []string
	err := b.do(ctx, c, pool, func() (err error) {
		names, err = b.store.List(ctx, c, pool)
		return err
	})
	return names, err
}

// HasChanges implements Store.
func (b *Bulkhead) HasChanges(ctx context.Context, c Cluster, ref ImageRef, since string) (bool, error) {
	var written bool
	err := b.doLengthy(c, ref.Pool, func() (err error) {
		written, err = b.store.HasChanges(ctx, c, ref, since)
		return err
	})
	return written, err
}

// CreateSnapshot implements Store.
func (b *Bulkhead) CreateSnapshot(ctx context.Context, c Cluster, ref ImageRef, name string) error {
	return b.do(ctx, c, ref.Pool, func() error { return b.store.CreateSnapshot(ctx, c, ref, name) })
}

// RemoveSnapshot implements Store.
func (b *Bulkhead) RemoveSnapshot(ctx context.Context, c Cluster, snapshot SnapshotRef) error {
	return b.do(ctx, c, snapshot.Pool, func() error { return b.store.RemoveSnapshot(ctx, c, snapshot) })
}

// Clone implements Store.
func (b *Bulkhead) Clone(ctx context.Context, c Cluster, parent ImageRef, snapshot string, ref ImageRef, layout Layout) error {
	return b.do(ctx, c, ref.Pool, func() error { return b.store.Clone(ctx, c, parent, snapshot, ref, layout) })
}

// CloneDepth implements Store.
func (b *Bulkhead) CloneDepth(ctx context.Context, c Cluster, ref ImageRef) (int, error) {
	depth := 0
	err := b.do(ctx, c, ref.Pool, func() (err error) {
		depth, err = b.store.CloneDepth(ctx, c, ref)
		return err
	})
	return depth, err
}

// Flatten implements Store.
func (b *Bulkhead) Flatten(ctx context.Context, c Cluster, ref ImageRef) error {
	return b.doLengthy(c, ref.Pool, func() error { return b.store.Flatten(ctx, c, ref) })
}

// Silent lists the pools that do not answer, in a stable order, and tells whether any
// other has answered when it was last asked.
func (b *Bulkhead) Silent() (silent []Silence, answering bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, comp := range b.compartments {
		switch {
		case comp.silence == nil:
			answering = answering || !comp.answer.IsZero()
		case time.Since(comp.silence.Last) < silenceMemory:
			silent = append(silent, *comp.silence)
		case comp.running == 0:
			delete(b.compartments, key)
		}
	}
	slices.SortFunc(silent, func(x, y Silence) int {
		return cmp.Or(cmp.Compare(x.Monitors, y.Monitors), cmp.Compare(x.Pool, y.Pool), cmp.Compare(x.User, y.User))
	})
	return silent, answering
}

// do runs an operation in the pool's compartment.
func (b *Bulkhead) do(ctx context.Context, c Cluster, pool string, operation func() error) error {
	key := keyOf(c, pool)
	if err := b.enter(ctx, key, c); err != nil {
		return err
	}
	begun := time.Now()
	err := operation()
	b.mu.Lock()
	defer b.mu.Unlock()
	comp := b.compartments[key]
	comp.running--
	close(comp.changed)
	comp.changed = make(chan struct{})
	if errors.Is(err, context.DeadlineExceeded) && (comp.answer.After(begun) || time.Since(begun) < b.patience) {
		return err // its own time was up, and that is all
	}
	comp.hear(key, err)
	return err
}

// doLengthy runs an operation beside the compartment, where it keeps nobody out. That
// it is not over yet says nothing about Ceph.
func (b *Bulkhead) doLengthy(c Cluster, pool string, operation func() error) error {
	key := keyOf(c, pool)
	b.mu.Lock()
	comp := b.compartmentOf(key)
	silence := comp.silence
	b.mu.Unlock()
	if silence != nil {
		return notAsked(key, c, silence.Err)
	}
	err := operation()
	if errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.compartmentOf(key).hear(key, err)
	return err
}

func keyOf(c Cluster, pool string) compartmentKey {
	return compartmentKey{strings.Join(c.Monitors, ","), c.User, pool}
}

func notAsked(key compartmentKey, c Cluster, silence error) error {
	return fmt.Errorf("%w: pool %s on %s does not answer: %w", ErrPoolUnavailable, key.pool, c, silence)
}

func (b *Bulkhead) compartmentOf(key compartmentKey) *compartment {
	comp := b.compartments[key]
	if comp == nil {
		comp = &compartment{changed: make(chan struct{}), progress: time.Now()}
		b.compartments[key] = comp
	}
	return comp
}

// enter waits for room in the pool's compartment.
func (b *Bulkhead) enter(ctx context.Context, key compartmentKey, c Cluster) error {
	deadline := time.Now().Add(waits * b.patience)
	for {
		changed, left, silence := b.tryEnter(key)
		left = min(left, time.Until(deadline))
		switch {
		case changed == nil:
			return nil
		case silence != nil:
			return notAsked(key, c, silence)
		case left <= 0:
			return fmt.Errorf("%w: pool %s on %s is busy with %d operations: %w", ErrPoolUnavailable, key.pool, c, b.limit, ErrTimeout)
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: pool %s on %s is busy: %w", ErrPoolUnavailable, key.pool, c, err)
		}
	}
}

// tryEnter takes a place and returns nil, or returns what to wait for, for how long
// the pool is still trusted to answer, and how it was last silent.
func (b *Bulkhead) tryEnter(key compartmentKey) (changed chan struct{}, left time.Duration, silence error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	comp := b.compartmentOf(key)
	limit := b.limit
	if comp.silence != nil {
		silence = comp.silence.Err
		limit = 1 // to find out when it answers again
	}
	if comp.running < limit {
		comp.running++
		if comp.silence == nil {
			comp.progress = time.Now() // it has its own time to be answered
		}
		return nil, 0, nil
	}
	return comp.changed, b.patience - time.Since(comp.progress), silence
}

// hear takes note of what became of an operation.
func (comp *compartment) hear(key compartmentKey, err error) {
	now := time.Now()
	switch silence := silenceOf(err); {
	case silence == nil && answered(err):
		comp.progress, comp.answer, comp.silence = now, now, nil
	case silence == nil:
	case comp.silence == nil:
		comp.answer = time.Time{}
		comp.silence = &Silence{Monitors: key.monitors, User: key.user, Pool: key.pool, Err: silence, Since: now, Last: now}
	default:
		comp.silence.Err, comp.silence.Last = silence, now
	}
}

// silenceOf returns in which way Ceph has not answered, or nil.
func silenceOf(err error) error {
	for _, silence := range []error{ErrUnreachable, ErrUnknownMonitor, ErrConnectionLost, ErrTimeout} {
		if errors.Is(err, silence) {
			return silence
		}
	}
	return nil
}

// answered tells whether an operation shows that Ceph answers: not if it has come
// to nothing on our own side.
func answered(err error) bool {
	return !errors.Is(err, ErrInProgress) && !errors.Is(err, ErrInvalidKey)
}
