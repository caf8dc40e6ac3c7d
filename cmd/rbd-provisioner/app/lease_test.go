package app

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// leaseServer is an API server with one Lease. Each candidate has a way of its own to it, which
// can fail alone.
type leaseServer struct {
	mu      sync.Mutex
	lease   *coordinationv1.Lease
	version int
	creates int
	renewed map[string]int // updates by each holder
	holders []string       // in order
}

// way is one candidate's way to the server.
type way struct {
	*httptest.Server
	mu   sync.Mutex
	held chan struct{} // requests wait until it is closed; nil: they do not
}

func newLeaseServer() *leaseServer { return &leaseServer{renewed: map[string]int{}} }

func (s *leaseServer) newWay(t *testing.T) *way {
	t.Helper()
	w := &way{}
	decoder := &apiServer{}
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var sent *coordinationv1.Lease
		if r.Method != http.MethodGet {
			sent = decoder.read(t, r).(*coordinationv1.Lease)
		}
		w.mu.Lock()
		held := w.held
		w.mu.Unlock()
		if held != nil {
			<-held
		}
		s.serve(t, rw, sent, r.Method)
	}))
	t.Cleanup(func() {
		w.heal()
		w.Close()
	})
	return w
}

// hang has requests wait. The client may have gone when heal lets them go on.
func (w *way) hang() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = make(chan struct{})
}

func (w *way) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil {
		close(w.held)
		w.held = nil
	}
}

func (s *leaseServer) serve(t *testing.T, w http.ResponseWriter, sent *coordinationv1.Lease, method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	leases := coordinationv1.Resource("leases")
	refuse := func(err *apierrors.StatusError) { answer(t, w, int(err.ErrStatus.Code), &err.ErrStatus) }
	switch {
	case method == http.MethodPost && s.lease != nil:
		refuse(apierrors.NewAlreadyExists(leases, sent.Name))
	case method == http.MethodPost:
		s.creates++
		s.set(sent)
		answer(t, w, http.StatusCreated, s.lease)
	case s.lease == nil:
		refuse(apierrors.NewNotFound(leases, "ceph.com-rbd"))
	case method == http.MethodPut && sent.ResourceVersion != s.lease.ResourceVersion:
		refuse(apierrors.NewConflict(leases, sent.Name, errors.New("it has changed")))
	case method == http.MethodPut:
		s.set(sent)
		answer(t, w, http.StatusOK, s.lease)
	default:
		answer(t, w, http.StatusOK, s.lease)
	}
}

// set is called with the lock held.
func (s *leaseServer) set(lease *coordinationv1.Lease) {
	s.version++
	s.lease = lease.DeepCopy()
	s.lease.UID, s.lease.ResourceVersion = "lease-1", strconv.Itoa(s.version)
	holder := holderOf(s.lease)
	s.renewed[holder]++
	if len(s.holders) == 0 || s.holders[len(s.holders)-1] != holder {
		s.holders = append(s.holders, holder)
	}
}

// change changes the lease as an administrator would; nil deletes it.
func (s *leaseServer) change(to func(*coordinationv1.Lease) *coordinationv1.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lease := to(s.lease); lease != nil {
		s.set(lease)
	} else {
		s.lease = nil
	}
}

func (s *leaseServer) renewals(holder string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewed[holder]
}

// candidate takes part in an election, with real clients. Its work lasts until the test ends it.
type candidate struct {
	*elector
	*way
	working chan struct{} // closed when work begins
	release chan struct{} // ends work, when it is closed
	exits   chan error
	exited  atomic.Bool
	ended   chan error
	stop    context.CancelFunc
}

// scaled are options that Validate accepts. A loss is noticed after 1.27 s, and others lead after 2 s.
func scaled(master string) *Options {
	opts := testOptions()
	opts.Master = master
	opts.LeaderElection.LeaseDuration = 2 * time.Second
	opts.LeaderElection.RenewDeadline = time.Second
	opts.LeaderElection.RetryPeriod = 20 * time.Millisecond
	return opts
}

// newCandidate starts a candidate. onWork is called when its work begins.
func (s *leaseServer) newCandidate(t *testing.T, onWork func()) *candidate {
	t.Helper()
	c := &candidate{
		way: s.newWay(t), working: make(chan struct{}), release: make(chan struct{}),
		exits: make(chan error, 10), ended: make(chan error, 1),
	}
	opts := scaled(c.URL)
	if errs := opts.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	clients, err := newClients(opts)
	if err != nil {
		t.Fatal(err)
	}
	c.elector, err = newElector(opts, clients.lease, func(reason error) {
		c.exited.Store(true)
		c.exits <- reason
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.stop = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.ended <- c.run(ctx, func(context.Context) error {
			onWork()
			close(c.working)
			<-c.release
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		c.finish()
		c.heal()
		await(t, "the end of a candidate", ended)
	})
	return c
}

// finish lets work end.
func (c *candidate) finish() {
	select {
	case <-c.release:
	default:
		close(c.release)
	}
}

func TestALeaderExitsBeforeAnotherLeadsWhenTheAPIServerHangs(t *testing.T) {
	t.Parallel()
	server := newLeaseServer()
	leader := server.newCandidate(t, func() {})
	await(t, "the leader", leader.working)
	standby := server.newCandidate(t, func() {
		if !leader.exited.Load() {
			t.Error("the standby leads while the leader works")
		}
	})
	leader.hang()
	if reason := await(t, "the exit", leader.exits); !errors.Is(reason, errNotRenewed) {
		t.Errorf("it exits because %v, want %v", reason, errNotRenewed)
	}
	await(t, "the standby", standby.working)
	// What hangs comes through now, and changes nothing.
	leader.heal()
	before := server.renewals(standby.lock.identity)
	waitFor(t, "renewals of the standby", func() bool { return server.renewals(standby.lock.identity) > before+5 })
	if standby.exited.Load() {
		t.Error("the standby exits")
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if len(server.holders) != 2 {
		t.Errorf("holders of the lease: %q", server.holders)
	}
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// TestARenewalIsAnsweredAtTheDeadline: whatever comes of it, no two work, and nobody gives away the
// lease of work that runs.
func TestARenewalIsAnsweredAtTheDeadline(t *testing.T) {
	t.Parallel()
	for _, milliseconds := range []int{900, 980, 1000, 1020, 1100} {
		at := time.Duration(milliseconds) * time.Millisecond
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			server := newLeaseServer()
			leader := server.newCandidate(t, func() {})
			await(t, "the leader", leader.working)
			standby := server.newCandidate(t, func() {
				if !leader.exited.Load() {
					t.Error("the standby leads while the leader works")
				}
			})
			leader.hang()
			<-time.After(at)
			before := server.renewals(leader.lock.identity)
			leader.heal()
			waitFor(t, "the leader to go on or to exit", func() bool {
				return leader.exited.Load() || server.renewals(leader.lock.identity) > before+5
			})
			if leader.exited.Load() {
				await(t, "the standby", standby.working)
			}
			server.mu.Lock()
			defer server.mu.Unlock()
			for _, holder := range server.holders {
				if holder == "" {
					t.Errorf("the lease was given back while work runs: %q", server.holders)
				}
			}
		})
	}
}

func TestALeaderExitsAtOnceWhenItsLeaseIsDeletedOrStolen(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*coordinationv1.Lease) *coordinationv1.Lease
		want   string
	}{
		"deleted": {
			func(*coordinationv1.Lease) *coordinationv1.Lease { return nil },
			"the lease was lost: it was deleted",
		},
		"held by another": {
			func(lease *coordinationv1.Lease) *coordinationv1.Lease {
				lease = lease.DeepCopy()
				lease.Spec.HolderIdentity = ptr.To("other")
				return lease
			},
			`the lease was lost: it is held by "other"`,
		},
		"given back by another": {
			func(lease *coordinationv1.Lease) *coordinationv1.Lease {
				lease = lease.DeepCopy()
				lease.Spec.HolderIdentity = nil
				return lease
			},
			`the lease was lost: it is held by ""`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newLeaseServer()
			leader := server.newCandidate(t, func() {})
			await(t, "the leader", leader.working)
			changed := time.Now()
			server.change(test.change)
			if reason := await(t, "the exit", leader.exits); reason.Error() != test.want {
				t.Errorf("it exits because %v, want %s", reason, test.want)
			}
			if took := time.Since(changed); took >= time.Second {
				t.Errorf("it has worked on for %s, until its renew deadline", took)
			}
			// A leader that does not exit, as here, takes the lease no more.
			if err := await(t, "the end", leader.ended); !errors.Is(err, errLeaseLost) {
				t.Errorf("error %v, want %v", err, errLeaseLost)
			}
			server.mu.Lock()
			defer server.mu.Unlock()
			if server.creates != 1 {
				t.Errorf("the lease was created %d times", server.creates)
			}
		})
	}
}

func TestAChangeOfTheLeaseThatIsNotOfItsHolderIsKept(t *testing.T) {
	t.Parallel()
	server := newLeaseServer()
	leader := server.newCandidate(t, func() {})
	await(t, "the leader", leader.working)
	server.change(func(lease *coordinationv1.Lease) *coordinationv1.Lease {
		lease = lease.DeepCopy()
		metav1.SetMetaDataLabel(&lease.ObjectMeta, "team", "storage")
		return lease
	})
	before := server.renewals(leader.lock.identity)
	waitFor(t, "renewals", func() bool { return server.renewals(leader.lock.identity) > before+3 })
	leader.finish()
	if err := await(t, "the end", leader.ended); err != nil {
		t.Error(err)
	}
	if got := server.lease; holderOf(got) != "" || got.Labels["team"] != "storage" {
		t.Errorf("the lease is held by %q, with labels %v", holderOf(got), got.Labels)
	}
}

// TestALeaseRunsOutWithoutClientGo: client-go may be kept from noticing that it was not renewed.
func TestALeaseRunsOutWithoutClientGo(t *testing.T) {
	t.Parallel()
	exits := make(chan error, 1)
	lock := &leaseLock{lease: othersLease(), validFor: time.Hour, exit: func(reason error) { exits <- reason }, turn: make(chan struct{}, 1)}
	lock.renewed(time.Now().Add(-59 * time.Minute))
	select {
	case reason := <-exits:
		t.Fatalf("it exits too early: %v", reason)
	default:
	}
	// As after a process that was stopped between the request and its answer.
	lock.renewed(time.Now().Add(-time.Hour))
	if reason := await(t, "the exit", exits); !errors.Is(reason, errNotRenewed) {
		t.Errorf("it exits because %v, want %v", reason, errNotRenewed)
	}
	if _, _, err := lock.Get(t.Context()); !errors.Is(err, errLeaseLost) {
		t.Errorf("a request after the loss: %v", err)
	}
}

func TestARequestThatWaitsKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	lock := &leaseLock{turn: make(chan struct{}, 1)}
	end, err := lock.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := lock.begin(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
