package app

import (
	"context"
	"errors"
	"os"
	goruntime "runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/utils/ptr"
)

// quickElector renews every few milliseconds, and gives up only when the test would.
func quickElector(t *testing.T, client *fake.Clientset, changes ...func(*LeaderElectionOptions)) *elector {
	t.Helper()
	opts := testOptions()
	opts.LeaderElection.LeaseDuration = 2 * patience
	opts.LeaderElection.RenewDeadline = patience
	opts.LeaderElection.RetryPeriod = 5 * time.Millisecond
	for _, change := range changes {
		change(&opts.LeaderElection)
	}
	e, err := newElector(opts, client, func(reason error) { t.Errorf("it exits: %v", reason) })
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// exits has the elector send its reasons to exit to the test.
func exits(e *elector) <-chan error {
	reasons := make(chan error, 10)
	e.lock.exit = func(reason error) { reasons <- reason }
	return reasons
}

// holder says who has the lease.
func holder(t *testing.T, client *fake.Clientset) string {
	t.Helper()
	// Not the test's context: that is done when the test is cleaned up.
	lease, err := client.CoordinationV1().Leases("rbd").Get(context.Background(), "ceph.com-rbd", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

// othersLease is held by another for an hour.
func othersLease() *coordinationv1.Lease {
	now := metav1.NowMicro()
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "rbd", Name: "ceph.com-rbd"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To("other"), LeaseDurationSeconds: ptr.To[int32](3600), AcquireTime: &now, RenewTime: &now,
		},
	}
}

// onLeases runs before each such request; an error from it is the request's.
func onLeases(client *fake.Clientset, verb string, do func() error) {
	client.PrependReactor(verb, "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		if err := do(); err != nil {
			return true, &coordinationv1.Lease{}, err
		}
		return false, nil, nil
	})
}

func TestWorkRunsWhileLeadingAndTheLeaseIsReleasedAfterIt(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	e := quickElector(t, client)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	var renewed atomic.Int32
	onLeases(client, "update", func() error { renewed.Add(1); return nil })
	working, release := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- e.run(ctx, func(ctx context.Context) error {
			close(working)
			<-ctx.Done()
			<-release // work takes its time
			if got := holder(t, client); !strings.HasPrefix(got, host+"_") {
				t.Errorf("the lease is held by %q while this process works", got)
			}
			return nil
		})
	}()
	await(t, "work", working)
	if got := holder(t, client); !strings.HasPrefix(got, host+"_") {
		t.Errorf("the lease is held by %q, want a name of this host", got)
	}
	cancel()
	// Told to stop, it keeps the lease as long as it works.
	for before := renewed.Load(); renewed.Load() < before+3; {
		select {
		case err := <-ended:
			t.Fatalf("it did not wait for work to return: %v", err)
		default:
			goruntime.Gosched()
		}
	}
	close(release)
	if err := await(t, "the end", ended); err != nil {
		t.Error(err)
	}
	if got := holder(t, client); got != "" {
		t.Errorf("the lease is still held by %q", got)
	}
}

func TestTheLeaseIsReleasedThoughARenewalGotThroughUnseen(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile string // who has the lease when its version has changed; we if empty
		want      string
	}{
		"it is still ours":       {"", ""},
		"it is another's by now": {"other", "other"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewSimpleClientset()
			conflicts := 0
			client.PrependReactor("update", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
				lease := action.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
				if ptr.Deref(lease.Spec.HolderIdentity, "") != "" || conflicts > 0 {
					return false, nil, nil
				}
				conflicts++
				if test.meanwhile != "" {
					taken := lease.DeepCopy()
					taken.Spec.HolderIdentity = &test.meanwhile
					if err := client.Tracker().Update(action.GetResource(), taken, "rbd"); err != nil {
						t.Error(err)
					}
				}
				return true, &coordinationv1.Lease{}, apierrors.NewConflict(coordinationv1.Resource("leases"), lease.Name, errors.New("it has changed"))
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if err := quickElector(t, client).run(ctx, func(context.Context) error { cancel(); return nil }); err != nil {
				t.Error(err)
			}
			if got := holder(t, client); got != test.want || conflicts != 1 {
				t.Errorf("the lease is held by %q after %d conflicts, want %q", got, conflicts, test.want)
			}
		})
	}
}

func TestALostLeaseEndsTheProcessAtOnce(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	e := quickElector(t, client, func(o *LeaderElectionOptions) { o.RenewDeadline = 50 * time.Millisecond })
	reasons := exits(e)
	working, release := make(chan struct{}), make(chan struct{})
	onLeases(client, "update", func() error { return errors.New("the API server is gone") })
	ended, returned := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- e.run(t.Context(), func(context.Context) error {
			defer close(returned)
			close(working)
			<-release
			return nil
		})
	}()
	await(t, "work", working)
	// Work cannot be cancelled: the process exits while it still runs.
	if err := await(t, "the exit", reasons); !errors.Is(err, errNotRenewed) {
		t.Errorf("it exits because %v, want %v", err, errNotRenewed)
	}
	if err := await(t, "the end", ended); !errors.Is(err, errNotRenewed) {
		t.Errorf("error %v, want %v", err, errNotRenewed)
	}
	close(release)
	await(t, "work to return", returned)
}

func TestTheLeaseIsKeptWhenWorkIsLeft(t *testing.T) {
	t.Parallel()
	failure := errors.New("it cannot work")
	for name, test := range map[string]struct{ work, want error }{
		"operations are left": {errWorkLeft, nil},
		"work has failed":     {failure, failure},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewSimpleClientset()
			e := quickElector(t, client)
			err := e.run(t.Context(), func(context.Context) error { return test.work })
			if !errors.Is(err, test.want) || err != nil && test.want == nil {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if got := holder(t, client); got != e.lock.identity {
				t.Errorf("the lease is held by %q, want %q", got, e.lock.identity)
			}
		})
	}
}

func TestStoppingWhileWaitingForTheLeaseIsNoFailure(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset(othersLease())
	e := quickElector(t, client)
	waiting := make(chan struct{}, 1)
	onLeases(client, "get", func() error {
		select {
		case waiting <- struct{}{}:
		default:
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- e.run(ctx, func(context.Context) error { t.Error("it works, though another leads"); return nil })
	}()
	await(t, "the first look at the lease", waiting)
	await(t, "another look at the lease", waiting)
	cancel()
	if err := await(t, "the end", ended); err != nil {
		t.Error(err)
	}
	if got := holder(t, client); got != "other" {
		t.Errorf("the lease was taken from the other: %q", got)
	}
}

func TestWorkDoesNotBeginWhenToldToStopWhileTakingTheLease(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	e := quickElector(t, client)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	onLeases(client, "create", func() error { cancel(); return nil })
	if err := e.run(ctx, func(context.Context) error { t.Error("it works, though it was told to stop"); return nil }); err != nil {
		t.Error(err)
	}
	if got := holder(t, client); got != "" {
		t.Errorf("the lease is still held by %q", got)
	}
}

func TestALeaseThatWasReleasedIsTakenOver(t *testing.T) {
	t.Parallel()
	lease := othersLease()
	lease.Spec.HolderIdentity = ptr.To("")
	client := fake.NewSimpleClientset(lease)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	worked := false
	if err := quickElector(t, client).run(ctx, func(context.Context) error { worked = true; cancel(); return nil }); err != nil || !worked {
		t.Errorf("worked: %t, %v", worked, err)
	}
}

func TestWorkRunsWithoutAnElectionWhereNoneIsAskedFor(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	opts := testOptions()
	opts.LeaderElection.Enabled = false
	e, err := newElector(opts, client, func(reason error) { t.Errorf("it exits: %v", reason) })
	if err != nil {
		t.Fatal(err)
	}
	worked := false
	if err := e.run(t.Context(), func(context.Context) error { worked = true; return nil }); err != nil || !worked {
		t.Errorf("worked: %t, %v", worked, err)
	}
	if got := client.Actions(); len(got) > 0 {
		t.Errorf("requests for a lease that nobody wants: %v", got)
	}
	if err := e.check().run(nil); err != nil {
		t.Errorf("not alive: %v", err)
	}
}

func TestALeaderThatDoesNotNoticeTheEndOfItsLeaseIsNotAlive(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	e := quickElector(t, client)
	// An hour's grace less than none: every lease that is held has run out.
	e.watchdog = leaderelection.NewLeaderHealthzAdaptor(-time.Hour)
	if err := e.check().run(nil); err != nil {
		t.Errorf("not alive before it leads: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// Checked while the lease is being renewed, for client-go's check and renewal are
	// not made to run side by side.
	onLeases(client, "update", func() error {
		if ctx.Err() != nil {
			return nil // the lease is being given back
		}
		defer cancel()
		if err := e.check().run(nil); err == nil {
			t.Error("alive, though its lease has run out")
		}
		return nil
	})
	if err := e.run(ctx, func(ctx context.Context) error { <-ctx.Done(); return nil }); err != nil {
		t.Error(err)
	}
	if err := e.check().run(nil); err != nil {
		t.Errorf("not alive after it has led: %v", err)
	}
	if name := e.check().name; name != "leader-election" {
		t.Errorf("the check is at /healthz/%s, where nobody looks", name)
	}
}
