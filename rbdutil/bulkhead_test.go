package rbdutil_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// silent is a fake whose cluster "dead" keeps every caller until it is let go.
type silent struct {
	*rbdfake.Ceph
	entered chan struct{}
	release chan struct{}
}

func newSilent() *silent {
	s := &silent{Ceph: rbdfake.New("kube"), entered: make(chan struct{}, 100), release: make(chan struct{})}
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

func TestBulkheadRefusesToWaitForADeadCluster(t *testing.T) {
	t.Parallel()
	const limit = 3
	ceph := newSilent()
	b := rbdutil.NewBulkhead(ceph, limit, time.Millisecond)
	ref := rbdutil.ImageRef{Pool: "kube", Name: "x"}
	ended := make(chan error, limit)
	for range limit {
		go func() { ended <- b.Update(t.Context(), clusterAt("dead"), rbdutil.Image{ImageRef: ref}, nil, 0) }()
		<-ceph.entered
	}
	if err := b.Update(t.Context(), clusterAt("dead"), rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, rbdutil.ErrPoolUnavailable) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrPoolUnavailable)
	}
	if _, err := b.Get(t.Context(), clusterAt("alive"), ref); !errors.Is(err, rbdutil.ErrImageNotFound) {
		t.Errorf("another cluster answers %v, want %v", err, rbdutil.ErrImageNotFound)
	}
	close(ceph.release)
	for range limit {
		if err := <-ended; !errors.Is(err, rbdutil.ErrTimeout) {
			t.Errorf("error %v, want that of the operation", err)
		}
	}
	ceph.Before = nil
	if err := b.Update(t.Context(), clusterAt("dead"), rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, rbdutil.ErrImageNotFound) {
		t.Errorf("after its recovery the cluster answers %v, want %v", err, rbdutil.ErrImageNotFound)
	}
}

func TestBulkheadWaitsForAClusterThatIsOnlyBusy(t *testing.T) {
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
	b := rbdutil.NewBulkhead(ceph, limit, time.Minute)
	ended := make(chan error, callers)
	for i := range callers {
		go func() {
			ref := rbdutil.ImageRef{Pool: "kube", Name: string(rune('A' + i))}
			ended <- b.Create(t.Context(), clusterAt("busy"), ref, rbdutil.Layout{Features: rbdutil.Layering})
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

// answers is a fake that answers as it is told to.
func answers(answer *error) *rbdfake.Ceph {
	ceph := rbdfake.New("kube", "other")
	ceph.Before = func(_ context.Context, _ string, c rbdutil.Cluster, ref rbdutil.ImageRef) error {
		if ref.Pool == "kube" && c.Monitors[0] == "mon" {
			return *answer
		}
		return nil
	}
	return ceph
}

func TestBulkheadAsksASilentPoolOnlyOnceAtATime(t *testing.T) {
	t.Parallel()
	ref := rbdutil.ImageRef{Pool: "kube", Name: "x"}
	for _, silence := range []error{rbdutil.ErrUnreachable, rbdutil.ErrUnknownMonitor, rbdutil.ErrConnectionLost, rbdutil.ErrTimeout} {
		t.Run(silence.Error(), func(t *testing.T) {
			t.Parallel()
			answer := fmt.Errorf("create image kube/x: %w", silence)
			ceph := answers(&answer)
			b := rbdutil.NewBulkhead(ceph, 3, time.Hour)
			if err := b.Update(t.Context(), clusterAt("mon"), rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, silence) || errors.Is(err, rbdutil.ErrPoolUnavailable) {
				t.Fatalf("error %v, want that of the operation", err)
			}
			// One asks, and meanwhile all others are refused.
			entered, release, ended := make(chan struct{}), make(chan struct{}), make(chan error)
			before := ceph.Before
			ceph.Before = func(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef) error {
				if op == rbdfake.OpCreate {
					close(entered)
					<-release
				}
				return before(ctx, op, c, ref)
			}
			go func() { ended <- b.Create(t.Context(), clusterAt("mon"), ref, rbdutil.Layout{}) }()
			<-entered
			err := b.Update(t.Context(), clusterAt("mon"), rbdutil.Image{ImageRef: ref}, nil, 0)
			if !errors.Is(err, rbdutil.ErrPoolUnavailable) || !errors.Is(err, silence) {
				t.Errorf("error %v, want %v and %v", err, rbdutil.ErrPoolUnavailable, silence)
			}
			for name, where := range map[string]struct {
				cluster rbdutil.Cluster
				pool    string
			}{
				"another pool":    {clusterAt("mon"), "other"},
				"another cluster": {clusterAt("elsewhere"), "kube"},
			} {
				if _, err := b.List(t.Context(), where.cluster, where.pool); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			answer = nil
			close(release)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if silent, _ := b.Silent(); len(silent) > 0 {
				t.Errorf("%v after it has answered", silent)
			}
		})
	}
}

func TestBulkheadTellsWhoIsSilent(t *testing.T) {
	t.Parallel()
	answer := fmt.Errorf("connect: %w", rbdutil.ErrUnreachable)
	ceph := answers(&answer)
	b := rbdutil.NewBulkhead(ceph, 3, time.Hour)
	if silent, answering := b.Silent(); len(silent) > 0 || answering {
		t.Errorf("%v, %t before anything was asked", silent, answering)
	}
	ask := func() {
		t.Helper()
		if _, err := b.List(t.Context(), clusterAt("mon"), "kube"); !errors.Is(err, answer) {
			t.Fatal(err)
		}
	}
	ask()
	silent, answering := b.Silent()
	if len(silent) != 1 || answering {
		t.Fatalf("%v, %t", silent, answering)
	}
	first := silent[0]
	if first.Monitors != "mon" || first.Pool != "kube" || first.Err != rbdutil.ErrUnreachable || first.Since != first.Last { //nolint:errorlint // the very sentinel
		t.Errorf("%+v", first)
	}
	answer = fmt.Errorf("read: %w", rbdutil.ErrTimeout)
	ask()
	if silent, _ = b.Silent(); silent[0].Since != first.Since || !silent[0].Last.After(first.Last) || !errors.Is(silent[0].Err, rbdutil.ErrTimeout) {
		t.Errorf("%+v after %+v", silent[0], first)
	}
	if _, err := b.List(t.Context(), clusterAt("elsewhere"), "kube"); err != nil {
		t.Fatal(err)
	}
	if silent, answering = b.Silent(); len(silent) != 1 || !answering {
		t.Errorf("%v, %t", silent, answering)
	}
	// What comes to nothing on our side is no answer.
	answer = fmt.Errorf("list: %w", rbdutil.ErrInProgress)
	ask()
	if silent, _ = b.Silent(); len(silent) != 1 {
		t.Errorf("%v", silent)
	}
	answer = fmt.Errorf("list: %w", rbdutil.ErrAccessDenied)
	ask()
	if silent, _ = b.Silent(); len(silent) != 0 {
		t.Errorf("%v after an answer, though an unkind one", silent)
	}
}

// A big image takes its time to go; that is not silence.
func TestBulkheadDoesNotTakeALongRemovalForSilence(t *testing.T) {
	t.Parallel()
	answer := fmt.Errorf("remove: %w (%w)", rbdutil.ErrTimeout, context.DeadlineExceeded)
	b := rbdutil.NewBulkhead(answers(&answer), 3, time.Hour)
	ref := rbdutil.ImageRef{Pool: "kube", Name: "x"}
	if err := b.RemoveFromTrash(t.Context(), clusterAt("mon"), "kube", rbdutil.TrashedImage{ID: "x"}, owner); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Error(err)
	}
	if _, err := b.HasChanges(t.Context(), clusterAt("mon"), ref, ""); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Error(err)
	}
	if silent, _ := b.Silent(); len(silent) != 0 {
		t.Errorf("%v", silent)
	}
	answer = fmt.Errorf("update: %w", rbdutil.ErrTimeout)
	if err := b.Update(t.Context(), clusterAt("mon"), rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Error(err)
	}
	if silent, _ := b.Silent(); len(silent) != 1 {
		t.Errorf("%v", silent)
	}
}

// What runs for hours must not keep out what finds out that the pool answers again.
func TestBulkheadLetsALengthyOperationKeepNobodyOut(t *testing.T) {
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
	b := rbdutil.NewBulkhead(ceph, 1, time.Hour)
	go func() {
		ended <- b.RemoveFromTrash(t.Context(), clusterAt("mon"), "kube", rbdutil.TrashedImage{ID: "1"}, owner)
	}()
	<-entered
	answer = rbdutil.ErrUnreachable
	if _, err := b.List(t.Context(), clusterAt("mon"), "kube"); !errors.Is(err, answer) {
		t.Errorf("error %v, want %v", err, answer)
	}
	if err := b.RemoveFromTrash(t.Context(), clusterAt("mon"), "kube", rbdutil.TrashedImage{ID: "2"}, owner); !errors.Is(err, rbdutil.ErrPoolUnavailable) {
		t.Errorf("error %v, want %v: it would not find out soon", err, rbdutil.ErrPoolUnavailable)
	}
	answer = nil
	if _, err := b.List(t.Context(), clusterAt("mon"), "kube"); err != nil {
		t.Errorf("%v, after the pool has come back", err)
	}
	close(release)
	if err := <-ended; !errors.Is(err, rbdutil.ErrImageNotFound) {
		t.Error(err)
	}
}

// An operation whose own time is up at once says nothing about Ceph.
func TestBulkheadDoesNotTakeAShortDeadlineForSilence(t *testing.T) {
	t.Parallel()
	answer := fmt.Errorf("list: %w (%w)", rbdutil.ErrTimeout, context.DeadlineExceeded)
	b := rbdutil.NewBulkhead(answers(&answer), 3, time.Hour)
	if _, err := b.List(t.Context(), clusterAt("mon"), "kube"); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Error(err)
	}
	if silent, _ := b.Silent(); len(silent) != 0 {
		t.Errorf("%v", silent)
	}
}

func TestBulkheadStopsWaitingWithItsCaller(t *testing.T) {
	t.Parallel()
	ceph := newSilent()
	b := rbdutil.NewBulkhead(ceph, 1, time.Hour)
	ref := rbdutil.ImageRef{Pool: "kube", Name: "x"}
	ended := make(chan error)
	go func() { ended <- b.Update(t.Context(), clusterAt("dead"), rbdutil.Image{ImageRef: ref}, nil, 0) }()
	<-ceph.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Update(ctx, clusterAt("dead"), rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, rbdutil.ErrPoolUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrPoolUnavailable)
	}
	close(ceph.release)
	<-ended
}
