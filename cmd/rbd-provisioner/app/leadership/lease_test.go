package leadership

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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/apptest"
)

// leaseServer is an API server with one Lease. Each candidate has its own connection, which can fail
// separately.
type leaseServer struct {
	mu      sync.Mutex
	lease   *coordinationv1.Lease
	version int
	creates int
	renewed map[string]int // updates by each holder
	holders []string       // in order
}

// connection is the connection of one candidate to the server.
type connection struct {
	*httptest.Server
	mu   sync.Mutex
	held chan struct{} // requests wait until it is closed; nil: they do not wait
}

func newLeaseServer() *leaseServer { return &leaseServer{renewed: map[string]int{}} }

func (s *leaseServer) connect(t *testing.T) *connection {
	t.Helper()
	c := &connection{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var sent *coordinationv1.Lease
		if r.Method != http.MethodGet {
			sent = apptest.Decode(t, r).(*coordinationv1.Lease)
		}
		c.mu.Lock()
		held := c.held
		c.mu.Unlock()
		if held != nil {
			<-held
		}
		s.serve(t, rw, sent, r.Method)
	}))
	t.Cleanup(func() {
		c.heal()
		c.Close()
	})
	return c
}

// hang makes requests wait until heal. The client may be gone by then.
func (c *connection) hang() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = make(chan struct{})
}

func (c *connection) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil {
		close(c.held)
		c.held = nil
	}
}

func (s *leaseServer) serve(t *testing.T, w http.ResponseWriter, sent *coordinationv1.Lease, method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	leases := coordinationv1.Resource("leases")
	refuse := func(err *apierrors.StatusError) { apptest.Answer(t, w, int(err.ErrStatus.Code), &err.ErrStatus) }
	switch {
	case method == http.MethodPost && s.lease != nil:
		refuse(apierrors.NewAlreadyExists(leases, sent.Name))
	case method == http.MethodPost:
		s.creates++
		s.set(sent)
		apptest.Answer(t, w, http.StatusCreated, s.lease)
	case s.lease == nil:
		refuse(apierrors.NewNotFound(leases, "ceph.com-rbd"))
	case method == http.MethodPut && sent.ResourceVersion != s.lease.ResourceVersion:
		refuse(apierrors.NewConflict(leases, sent.Name, errors.New("it was modified")))
	case method == http.MethodPut:
		s.set(sent)
		apptest.Answer(t, w, http.StatusOK, s.lease)
	default:
		apptest.Answer(t, w, http.StatusOK, s.lease)
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

// change changes the lease as an administrator would. If to returns nil, the lease is deleted.
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

// candidate takes part in an election with a real client. Its work runs until finish is called.
type candidate struct {
	*Elector
	*connection
	working chan struct{} // closed when work begins
	release chan struct{} // work ends when it is closed
	exits   chan error
	exited  atomic.Bool
	ended   chan error
	stop    context.CancelFunc
}

// shortLease has options that Validate accepts. A loss is noticed after 1.27 s, and a standby leads after 2 s.
func shortLease() *Options {
	opts := testOptions()
	opts.LeaseDuration = 2 * time.Second
	opts.RenewDeadline = time.Second
	opts.RetryPeriod = 20 * time.Millisecond
	return opts
}

// newCandidate starts a candidate. onWork is called when its work begins.
func (s *leaseServer) newCandidate(t *testing.T, onWork func()) *candidate {
	t.Helper()
	c := &candidate{
		connection: s.connect(t), working: make(chan struct{}), release: make(chan struct{}),
		exits: make(chan error, 10), ended: make(chan error, 1),
	}
	opts := shortLease()
	if errs := opts.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	client, err := kubernetes.NewForConfig(opts.ClientConfig(&rest.Config{
		Host: c.URL, ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeProtobuf, AcceptContentTypes: runtime.ContentTypeJSON},
	}))
	if err != nil {
		t.Fatal(err)
	}
	c.Elector, err = New(opts, "ceph.com/rbd", client, func(reason error) {
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
		c.ended <- c.Run(ctx, func(context.Context) error {
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
		apptest.Await(t, "the end of a candidate", ended)
	})
	return c
}

// finish ends the work.
func (c *candidate) finish() {
	select {
	case <-c.release:
	default:
		close(c.release)
	}
}

func TestALeaderExitsBeforeAnotherLeadsIfTheAPIServerHangs(t *testing.T) {
	t.Parallel()
	server := newLeaseServer()
	leader := server.newCandidate(t, func() {})
	apptest.Await(t, "the leader", leader.working)
	standby := server.newStandby(t, leader)
	leader.hang()
	if reason := apptest.Await(t, "the exit", leader.exits); !errors.Is(reason, errNotRenewed) {
		t.Errorf("exit because %v, want %v", reason, errNotRenewed)
	}
	apptest.Await(t, "the standby", standby.working)
	// The hanging requests reach the server now, and must not change the lease.
	leader.heal()
	before := server.renewals(standby.lock.identity)
	waitFor(t, "renewals of the standby", func() bool { return server.renewals(standby.lock.identity) > before+5 })
	if standby.exited.Load() {
		t.Error("the standby has exited")
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if len(server.holders) != 2 {
		t.Errorf("holders of the lease: %q", server.holders)
	}
}

// newStandby returns a candidate that must not lead before the leader has exited.
func (s *leaseServer) newStandby(t *testing.T, leader *candidate) *candidate {
	return s.newCandidate(t, func() {
		if !leader.exited.Load() {
			t.Error("the standby leads while the work of the leader is running")
		}
	})
}

// waitFor waits until the condition is true.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(apptest.Patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		case <-tick.C:
		}
	}
}

// TestARenewalIsAnsweredAtTheDeadline: the leader may go on or exit. But two processes must not work at
// the same time, and the lease must not be released while work is running.
func TestARenewalIsAnsweredAtTheDeadline(t *testing.T) {
	t.Parallel()
	for _, milliseconds := range []int{900, 980, 1000, 1020, 1100} {
		at := time.Duration(milliseconds) * time.Millisecond
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			server := newLeaseServer()
			leader := server.newCandidate(t, func() {})
			apptest.Await(t, "the leader", leader.working)
			standby := server.newStandby(t, leader)
			leader.hang()
			<-time.After(at)
			before := server.renewals(leader.lock.identity)
			leader.heal()
			waitFor(t, "the leader to go on or to exit", func() bool {
				return leader.exited.Load() || server.renewals(leader.lock.identity) > before+5
			})
			if leader.exited.Load() {
				apptest.Await(t, "the standby", standby.working)
			}
			server.mu.Lock()
			defer server.mu.Unlock()
			for _, holder := range server.holders {
				if holder == "" {
					t.Errorf("the lease was released while work is running: %q", server.holders)
				}
			}
		})
	}
}

func TestALeaderExitsIfItsLeaseIsDeletedOrStolen(t *testing.T) {
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
		"released by another": {
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
			apptest.Await(t, "the leader", leader.working)
			changed := time.Now()
			server.change(test.change)
			if reason := apptest.Await(t, "the exit", leader.exits); reason.Error() != test.want {
				t.Errorf("exit because %v, want %s", reason, test.want)
			}
			if took := time.Since(changed); took >= time.Second {
				t.Errorf("exit after %s, which is the renew deadline", took)
			}
			// If the exit function returns, as in this test, the lease must not be acquired again.
			if err := apptest.Await(t, "the end", leader.ended); !errors.Is(err, errLeaseLost) {
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

func TestChangesOfTheLeaseByOthersAreKept(t *testing.T) {
	t.Parallel()
	server := newLeaseServer()
	leader := server.newCandidate(t, func() {})
	apptest.Await(t, "the leader", leader.working)
	server.change(func(lease *coordinationv1.Lease) *coordinationv1.Lease {
		lease = lease.DeepCopy()
		metav1.SetMetaDataLabel(&lease.ObjectMeta, "team", "storage")
		return lease
	})
	before := server.renewals(leader.lock.identity)
	waitFor(t, "renewals", func() bool { return server.renewals(leader.lock.identity) > before+3 })
	leader.finish()
	if err := apptest.Await(t, "the end", leader.ended); err != nil {
		t.Error(err)
	}
	if got := server.lease; holderOf(got) != "" || got.Labels["team"] != "storage" {
		t.Errorf("the lease is held by %q, with labels %v", holderOf(got), got.Labels)
	}
}

// TestALeaseExpiresWithoutClientGo: client-go may be blocked and not notice that the renewal failed.
func TestALeaseExpiresWithoutClientGo(t *testing.T) {
	t.Parallel()
	exits := make(chan error, 1)
	lock := &leaseLock{lastLease: othersLease(), validFor: time.Hour, exit: func(reason error) { exits <- reason }, requestSlot: make(chan struct{}, 1)}
	lock.renewed(time.Now().Add(-59 * time.Minute))
	select {
	case reason := <-exits:
		t.Fatalf("exit too early: %v", reason)
	default:
	}
	// As if the process was stopped between the request and its answer.
	lock.renewed(time.Now().Add(-time.Hour))
	if reason := apptest.Await(t, "the exit", exits); !errors.Is(reason, errNotRenewed) {
		t.Errorf("exit because %v, want %v", reason, errNotRenewed)
	}
	if _, _, err := lock.Get(t.Context()); !errors.Is(err, errLeaseLost) {
		t.Errorf("a request after the loss: %v", err)
	}
}

func TestARequestThatWaitsKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	lock := &leaseLock{requestSlot: make(chan struct{}, 1)}
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
