// Package poollimit limits the operations that run on one pool, so that an unresponsive pool
// does not block other pools.
package poollimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

var _ rbdutil.Limiter = (*Limiter)(nil)

// Limiter isolates pools from each other. It limits the operations that run on one pool at
// the same time. On a pool that has stopped answering it runs one operation at a time and
// refuses the others. So workers that serve all pools do not all wait for one.
type Limiter struct {
	limit   int
	maxWait time.Duration

	mu    sync.Mutex
	pools map[poolKey]*poolState
}

// poolKey identifies what can fail independently: clusters, their pools (whose data may be
// on other disks) and users.
type poolKey struct{ monitors, user, pool string }

// poolState is the state of one pool.
type poolState struct {
	running int
	// progress is when an operation was last answered or started.
	progress time.Time
	// answered is when an operation was last answered; zero after an outage.
	answered time.Time
	// outage is nil if the last operation was answered.
	outage *Outage
	// changed is closed and replaced whenever an operation ends.
	changed chan struct{}
}

// Outage describes a pool that does not answer.
type Outage struct {
	Monitors, User, Pool string
	// Err is what rbdutil.OutageCause returned for the latest failure.
	Err error
	// Since is the time of the first failure, Last that of the latest one.
	Since, Last time.Time
}

const (
	// outageMemory is how long an outage is reported after its last failure: the claims
	// that used the pool may be gone. It is longer than the longest backoff of a claim.
	outageMemory = 5 * time.Minute
	// maxWaitFactor is how many times maxWait an operation waits at most. Otherwise all
	// workers could wait for one slow pool.
	maxWaitFactor = 3
)

// New returns a limiter of so many operations on each pool.
func New(limit int, maxWait time.Duration) *Limiter {
	return &Limiter{limit: limit, maxWait: maxWait, pools: map[poolKey]*poolState{}}
}

// Run implements rbdutil.Limiter. If the limit is reached, it waits until another operation
// ends. It returns rbdutil.ErrPoolUnavailable without running the operation in three cases:
//  1. No operation was answered for maxWait.
//  2. This one has waited maxWaitFactor times as long.
//  3. ctx is done.
//
// A lengthy operation does not count towards the limit and does not wait. During an outage
// it is refused.
func (l *Limiter) Run(ctx context.Context, c rbdutil.Cluster, pool string, lengthy bool, operation func() error) error {
	key := poolKey{strings.Join(c.Monitors, ","), c.User, pool}
	if lengthy {
		return l.runLengthy(key, c, operation)
	}
	if err := l.acquire(ctx, key, c); err != nil {
		return err
	}
	start := time.Now()
	err := operation()
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.pools[key]
	state.running--
	close(state.changed)
	state.changed = make(chan struct{})
	if errors.Is(err, context.DeadlineExceeded) && (state.answered.After(start) || time.Since(start) < l.maxWait) {
		return err // the caller's deadline was too short to conclude anything about the pool
	}
	state.record(key, err)
	return err
}

// runLengthy does not record an exceeded deadline: the operation may only be slow.
func (l *Limiter) runLengthy(key poolKey, c rbdutil.Cluster, operation func() error) error {
	l.mu.Lock()
	outage := l.stateOf(key).outage
	l.mu.Unlock()
	if outage != nil {
		return outageError(key, c, outage.Err)
	}
	err := operation()
	if errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stateOf(key).record(key, err)
	return err
}

// Outages lists the pools that do not answer, in a stable order. It also reports whether
// any other pool answered its last operation.
func (l *Limiter) Outages() (outages []Outage, answering bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, state := range l.pools {
		switch {
		case state.outage == nil:
			answering = answering || !state.answered.IsZero()
		case time.Since(state.outage.Last) < outageMemory:
			outages = append(outages, *state.outage)
		case state.running == 0:
			delete(l.pools, key)
		}
	}
	slices.SortFunc(outages, func(x, y Outage) int {
		return cmp.Or(cmp.Compare(x.Monitors, y.Monitors), cmp.Compare(x.Pool, y.Pool), cmp.Compare(x.User, y.User))
	})
	return outages, answering
}

// acquire waits until one more operation may run on the pool.
func (l *Limiter) acquire(ctx context.Context, key poolKey, c rbdutil.Cluster) error {
	deadline := time.Now().Add(maxWaitFactor * l.maxWait)
	for {
		changed, left, outage := l.tryAcquire(key)
		left = min(left, time.Until(deadline))
		switch {
		case changed == nil:
			return nil
		case outage != nil:
			return outageError(key, c, outage)
		case left <= 0:
			return fmt.Errorf("%w: %s on %s is busy with %d operations: %w", rbdutil.ErrPoolUnavailable, key.pool, c, l.limit, rbdutil.ErrTimeout)
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %s on %s is busy: %w", rbdutil.ErrPoolUnavailable, key.pool, c, err)
		}
	}
}

// tryAcquire returns no channel if the operation may run. Otherwise it returns the channel
// to wait for, how long to wait for it, and the error of an outage.
func (l *Limiter) tryAcquire(key poolKey) (changed chan struct{}, left time.Duration, outage error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	state, limit := l.stateOf(key), l.limit
	if state.outage != nil {
		outage = state.outage.Err
		limit = 1 // it shows when the pool answers again
	}
	if state.running < limit {
		state.running++
		if state.outage == nil {
			state.progress = time.Now() // the operation has the full time to be answered
		}
		return nil, 0, nil
	}
	return state.changed, l.maxWait - time.Since(state.progress), outage
}

func (l *Limiter) stateOf(key poolKey) *poolState {
	state := l.pools[key]
	if state == nil {
		state = &poolState{changed: make(chan struct{}), progress: time.Now()}
		l.pools[key] = state
	}
	return state
}

// record updates the state with the result of an operation.
func (s *poolState) record(key poolKey, err error) {
	now := time.Now()
	switch cause := rbdutil.OutageCause(err); {
	case cause == nil && isAnswer(err):
		s.progress, s.answered, s.outage = now, now, nil
	case cause == nil:
	case s.outage == nil:
		s.answered = time.Time{}
		s.outage = &Outage{Monitors: key.monitors, User: key.user, Pool: key.pool, Err: cause, Since: now, Last: now}
	default:
		s.outage.Err, s.outage.Last = cause, now
	}
}

func outageError(key poolKey, c rbdutil.Cluster, cause error) error {
	return fmt.Errorf("%w: %s on %s does not answer: %w", rbdutil.ErrPoolUnavailable, key.pool, c, cause)
}

// isAnswer reports whether a result came from Ceph. These errors are returned without a
// request to Ceph.
func isAnswer(err error) bool {
	return !errors.Is(err, rbdutil.ErrInProgress) && !errors.Is(err, rbdutil.ErrInvalidKey)
}
