package poollimit_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/poollimit"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// hanging is a fake whose cluster "dead" blocks every operation until it is released.
type hanging struct {
	*rbdfake.Ceph
	entered chan struct{}
	release chan struct{}
}

func newHanging(limiter rbdutil.Limiter) *hanging {
	s := &hanging{Ceph: rbdfake.New("kube"), entered: make(chan struct{}, 100), release: make(chan struct{})}
	s.Limiter = limiter
	s.Before = func(_ context.Context, _ string, c rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if c.Monitors[0] != "dead" {
			return nil
		}
		s.entered <- struct{}{}
		<-s.release
		return rbdutil.ErrTimeout
	}
	return s
}

func clusterAt(monitor string) rbdutil.Cluster { return rbdutil.Cluster{Monitors: []string{monitor}} }

func TestLimiterRefusesToWaitForADeadCluster(t *testing.T) {
	t.Parallel()
	const limit = 3
	ceph := newHanging(poollimit.New(limit, time.Millisecond))
	ref := rbdutil.ImageRef{Pool: "kube", Name: "x"}
	ended := make(chan error, limit)
	for range limit {
		go func() { ended <- ceph.Update(t.Context(), clusterAt("dead"), rbdutil.Image{ImageRef: ref}, nil, 0) }()
		<-ceph.entered
	}
	if err := ceph.Update(t.Context(), clusterAt("dead"), rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, rbdutil.ErrPoolUnavailable) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrPoolUnavailable)
	}
	if _, err := ceph.Get(t.Context(), clusterAt("alive"), ref); !errors.Is(err, rbdutil.ErrImageNotFound) {
		t.Errorf("another cluster answers %v, want %v", err, rbdutil.ErrImageNotFound)
	}
	close(ceph.release)
	for range limit {
		if err := <-ended; !errors.Is(err, rbdutil.ErrTimeout) {
			t.Errorf("error %v, want that of the operation", err)
		}
	}
	ceph.Before = nil
	if err := ceph.Update(t.Context(), clusterAt("dead"), rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, rbdutil.ErrImageNotFound) {
		t.Errorf("after its recovery the cluster answers %v, want %v", err, rbdutil.ErrImageNotFound)
	}
}

func TestLimiterWaitsForABusyCluster(t *testing.T) {
	t.Parallel()
	const limit, callers = 2, 50
	var running, most atomic.Int32
	ceph := rbdfake.New("kube")
	ceph.Before = func(context.Context, string, rbdutil.Cluster, rbdutil.ImageRef) error {
		now := running.Add(1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		return nil
	}
	ceph.After = func(context.Context, string, rbdutil.Cluster, rbdutil.ImageRef) error {
		running.Add(-1)
		return nil
	}
	ceph.Limiter = poollimit.New(limit, time.Minute)
	ended := make(chan error, callers)
	for i := range callers {
		go func() {
			ref := rbdutil.ImageRef{Pool: "kube", Name: string(rune('A' + i))}
			ended <- ceph.Create(t.Context(), clusterAt("busy"), ref, rbdutil.Layout{Features: rbdutil.Layering})
		}()
	}
	for range callers {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if most.Load() > limit {
		t.Errorf("%d operations at a time, want at most %d", most.Load(), limit)
	}
}

// fakeReturning returns a fake whose pool "kube" on "mon" returns the error that answer points to.
func fakeReturning(answer *error, limiter rbdutil.Limiter) *rbdfake.Ceph {
	ceph := rbdfake.New("kube", "other")
	ceph.Limiter = limiter
	ceph.Before = func(_ context.Context, _ string, c rbdutil.Cluster, ref rbdutil.ImageRef) error {
		if ref.Pool == "kube" && c.Monitors[0] == "mon" {
			return *answer
		}
		return nil
	}
	return ceph
}

func TestLimiterRunsOneOperationAtATimeDuringAnOutage(t *testing.T) {
	t.Parallel()
	ref := rbdutil.ImageRef{Pool: "kube", Name: "x"}
	for _, cause := range []error{rbdutil.ErrUnreachable, rbdutil.ErrUnknownMonitor, rbdutil.ErrConnectionLost, rbdutil.ErrTimeout} {
		t.Run(cause.Error(), func(t *testing.T) {
			t.Parallel()
			answer := fmt.Errorf("create image kube/x: %w", cause)
			limiter := poollimit.New(3, time.Hour)
			ceph := fakeReturning(&answer, limiter)
			if err := ceph.Update(t.Context(), clusterAt("mon"), rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, cause) || errors.Is(err, rbdutil.ErrPoolUnavailable) {
				t.Fatalf("error %v, want that of the operation", err)
			}
			// While one operation runs, the others are refused.
			entered, release, ended := make(chan struct{}), make(chan struct{}), make(chan error)
			before := ceph.Before
			ceph.Before = func(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef) error {
				if op == rbdfake.OpCreate {
					close(entered)
					<-release
				}
				return before(ctx, op, c, ref)
			}
			go func() { ended <- ceph.Create(t.Context(), clusterAt("mon"), ref, rbdutil.Layout{}) }()
			<-entered
			err := ceph.Update(t.Context(), clusterAt("mon"), rbdutil.Image{ImageRef: ref}, nil, 0)
			if !errors.Is(err, rbdutil.ErrPoolUnavailable) || !errors.Is(err, cause) {
				t.Errorf("error %v, want %v and %v", err, rbdutil.ErrPoolUnavailable, cause)
			}
			for name, where := range map[string]struct {
				cluster rbdutil.Cluster
				pool    string
			}{
				"another pool":    {clusterAt("mon"), "other"},
				"another cluster": {clusterAt("elsewhere"), "kube"},
			} {
				if _, err := ceph.List(t.Context(), where.cluster, where.pool); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			answer = nil
			close(release)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if outages, _ := limiter.Outages(); len(outages) > 0 {
				t.Errorf("outages %v after an answer", outages)
			}
		})
	}
}

func TestLimiterReportsOutages(t *testing.T) {
	t.Parallel()
	answer := fmt.Errorf("connect: %w", rbdutil.ErrUnreachable)
	limiter := poollimit.New(3, time.Hour)
	ceph := fakeReturning(&answer, limiter)
	if outages, answering := limiter.Outages(); len(outages) > 0 || answering {
		t.Errorf("outages %v, answering %t before the first operation", outages, answering)
	}
	ask := func() {
		t.Helper()
		if _, err := ceph.List(t.Context(), clusterAt("mon"), "kube"); !errors.Is(err, answer) {
			t.Fatal(err)
		}
	}
	ask()
	outages, answering := limiter.Outages()
	if len(outages) != 1 || answering {
		t.Fatalf("outages %v, answering %t", outages, answering)
	}
	first := outages[0]
	if first.Monitors != "mon" || first.Pool != "kube" || first.Err != rbdutil.ErrUnreachable || first.Since != first.Last { //nolint:errorlint // the very sentinel
		t.Errorf("%+v", first)
	}
	answer = fmt.Errorf("read: %w", rbdutil.ErrTimeout)
	ask()
	if outages, _ = limiter.Outages(); outages[0].Since != first.Since || !outages[0].Last.After(first.Last) || !errors.Is(outages[0].Err, rbdutil.ErrTimeout) {
		t.Errorf("%+v after %+v", outages[0], first)
	}
	if _, err := ceph.List(t.Context(), clusterAt("elsewhere"), "kube"); err != nil {
		t.Fatal(err)
	}
	if outages, answering = limiter.Outages(); len(outages) != 1 || !answering {
		t.Errorf("outages %v, answering %t", outages, answering)
	}
	// An error from this process is not an answer.
	answer = fmt.Errorf("list: %w", rbdutil.ErrInProgress)
	ask()
	if outages, _ = limiter.Outages(); len(outages) != 1 {
		t.Errorf("outages %v", outages)
	}
	answer = fmt.Errorf("list: %w", rbdutil.ErrAccessDenied)
	ask()
	if outages, _ = limiter.Outages(); len(outages) != 0 {
		t.Errorf("outages %v after an answer that is an error", outages)
	}
}

// To remove a large image takes long; that is not an outage.
func TestLimiterDoesNotReportALengthyOperationAsAnOutage(t *testing.T) {
	t.Parallel()
	answer := fmt.Errorf("remove: %w (%w)", rbdutil.ErrTimeout, context.DeadlineExceeded)
	limiter := poollimit.New(3, time.Hour)
	ceph := fakeReturning(&answer, limiter)
	ref := rbdutil.ImageRef{Pool: "kube", Name: "x"}
	if err := ceph.RemoveFromTrash(t.Context(), clusterAt("mon"), "kube", rbdutil.TrashedImage{ID: "x"}, rbdutil.Owner{}); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Error(err)
	}
	if _, err := ceph.HasChanges(t.Context(), clusterAt("mon"), ref, ""); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Error(err)
	}
	if outages, _ := limiter.Outages(); len(outages) != 0 {
		t.Errorf("outages %v", outages)
	}
	answer = fmt.Errorf("update: %w", rbdutil.ErrTimeout)
	if err := ceph.Update(t.Context(), clusterAt("mon"), rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Error(err)
	}
	if outages, _ := limiter.Outages(); len(outages) != 1 {
		t.Errorf("outages %v", outages)
	}
}

// An operation that runs for hours must not block the one that shows that the pool answers again.
func TestLimiterDoesNotCountLengthyOperations(t *testing.T) {
	t.Parallel()
	ceph := rbdfake.New("kube")
	entered, release, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	var answer error
	ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		switch op {
		case rbdfake.OpRemoveFromTrash:
			close(entered)
			<-release
		case rbdfake.OpList:
			return answer
		}
		return nil
	}
	ceph.Limiter = poollimit.New(1, time.Hour)
	go func() {
		ended <- ceph.RemoveFromTrash(t.Context(), clusterAt("mon"), "kube", rbdutil.TrashedImage{ID: "1"}, rbdutil.Owner{})
	}()
	<-entered
	answer = rbdutil.ErrUnreachable
	if _, err := ceph.List(t.Context(), clusterAt("mon"), "kube"); !errors.Is(err, answer) {
		t.Errorf("error %v, want %v", err, answer)
	}
	if err := ceph.RemoveFromTrash(t.Context(), clusterAt("mon"), "kube", rbdutil.TrashedImage{ID: "2"}, rbdutil.Owner{}); !errors.Is(err, rbdutil.ErrPoolUnavailable) {
		t.Errorf("error %v, want %v: a lengthy operation shows too late that the pool answers", err, rbdutil.ErrPoolUnavailable)
	}
	answer = nil
	if _, err := ceph.List(t.Context(), clusterAt("mon"), "kube"); err != nil {
		t.Errorf("error %v after the pool answers again", err)
	}
	close(release)
	if err := <-ended; !errors.Is(err, rbdutil.ErrImageNotFound) {
		t.Error(err)
	}
}

// An operation with a short deadline shows nothing about Ceph.
func TestLimiterDoesNotReportAShortDeadlineAsAnOutage(t *testing.T) {
	t.Parallel()
	answer := fmt.Errorf("list: %w (%w)", rbdutil.ErrTimeout, context.DeadlineExceeded)
	limiter := poollimit.New(3, time.Hour)
	ceph := fakeReturning(&answer, limiter)
	if _, err := ceph.List(t.Context(), clusterAt("mon"), "kube"); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Error(err)
	}
	if outages, _ := limiter.Outages(); len(outages) != 0 {
		t.Errorf("outages %v", outages)
	}
}

func TestLimiterStopsWaitingWhenTheContextIsDone(t *testing.T) {
	t.Parallel()
	ceph := newHanging(poollimit.New(1, time.Hour))
	ref := rbdutil.ImageRef{Pool: "kube", Name: "x"}
	ended := make(chan error)
	go func() { ended <- ceph.Update(t.Context(), clusterAt("dead"), rbdutil.Image{ImageRef: ref}, nil, 0) }()
	<-ceph.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ceph.Update(ctx, clusterAt("dead"), rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, rbdutil.ErrPoolUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrPoolUnavailable)
	}
	close(ceph.release)
	<-ended
}
