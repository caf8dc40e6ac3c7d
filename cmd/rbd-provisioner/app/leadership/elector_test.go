package leadership

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

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/apptest"
)

// quickElector renews every few milliseconds. Its renew deadline is not reached in a test that passes.
func quickElector(t *testing.T, client *fake.Clientset, changes ...func(*Options)) *Elector {
	t.Helper()
	opts := testOptions()
	opts.LeaseDuration = 2 * apptest.Patience
	opts.RenewDeadline = apptest.Patience
	opts.RetryPeriod = 5 * time.Millisecond
	for _, change := range changes {
		change(opts)
	}
	e, err := New(opts, "ceph.com/rbd", client, func(reason error) { t.Errorf("unexpected exit: %v", reason) })
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// exits makes the elector send its reasons to exit to the test.
func exits(e *Elector) <-chan error {
	reasons := make(chan error, 10)
	e.lock.exit = func(reason error) { reasons <- reason }
	return reasons
}

// holder returns the holder of the lease.
func holder(t *testing.T, client *fake.Clientset) string {
	t.Helper()
	// Not the context of the test, which is done during the cleanup.
	lease, err := client.CoordinationV1().Leases("rbd").Get(context.Background(), "ceph.com-rbd", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

// othersLease returns a lease that another process holds for an hour.
func othersLease() *coordinationv1.Lease {
	now := metav1.NowMicro()
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "rbd", Name: "ceph.com-rbd"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To("other"), LeaseDurationSeconds: ptr.To[int32](3600), AcquireTime: &now, RenewTime: &now,
		},
	}
}

// onLeases makes do run before each request with the verb. If do fails, the request fails with its error.
func onLeases(client *fake.Clientset, verb string, do func() error) {
	client.PrependReactor(verb, "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		if err := do(); err != nil {
			return true, &coordinationv1.Lease{}, err
		}
		return false, nil, nil
	})
}

func TestTheLeaseIsReleasedAfterWork(t *testing.T) {
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
		ended <- e.Run(ctx, func(ctx context.Context) error {
			close(working)
			<-ctx.Done()
			<-release
			if got := holder(t, client); !strings.HasPrefix(got, host+"_") {
				t.Errorf("the lease is held by %q while work is running", got)
			}
			return nil
		})
	}()
	apptest.Await(t, "work", working)
	if got := holder(t, client); !strings.HasPrefix(got, host+"_") {
		t.Errorf("the lease is held by %q, want a name of this host", got)
	}
	cancel()
	// After the stop, the lease is renewed until work has returned.
	for before := renewed.Load(); renewed.Load() < before+3; {
		select {
		case err := <-ended:
			t.Fatalf("Run returned before work: %v", err)
		default:
			goruntime.Gosched()
		}
	}
	close(release)
	if err := apptest.Await(t, "the end", ended); err != nil {
		t.Error(err)
	}
	if got := holder(t, client); got != "" {
		t.Errorf("the lease is still held by %q", got)
	}
}

func TestTheLeaseIsReleasedAfterAConflict(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile string // the holder when the version has changed; empty: this process
		want      string
	}{
		"held by this process":    {"", ""},
		"held by another process": {"other", "other"},
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
				return true, &coordinationv1.Lease{}, apierrors.NewConflict(coordinationv1.Resource("leases"), lease.Name, errors.New("it was modified"))
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if err := quickElector(t, client).Run(ctx, func(context.Context) error { cancel(); return nil }); err != nil {
				t.Error(err)
			}
			if got := holder(t, client); got != test.want || conflicts != 1 {
				t.Errorf("the lease is held by %q after %d conflicts, want %q", got, conflicts, test.want)
			}
		})
	}
}

func TestALostLeaseEndsTheProcess(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	e := quickElector(t, client, func(o *Options) { o.RenewDeadline = 50 * time.Millisecond })
	reasons := exits(e)
	working, release := make(chan struct{}), make(chan struct{})
	onLeases(client, "update", func() error { return errors.New("the API server is gone") })
	ended, returned := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- e.Run(t.Context(), func(context.Context) error {
			defer close(returned)
			close(working)
			<-release
			return nil
		})
	}()
	apptest.Await(t, "work", working)
	// Work cannot be cancelled: the process exits while it is running.
	if err := apptest.Await(t, "the exit", reasons); !errors.Is(err, errNotRenewed) {
		t.Errorf("exit because %v, want %v", err, errNotRenewed)
	}
	if err := apptest.Await(t, "the end", ended); !errors.Is(err, errNotRenewed) {
		t.Errorf("error %v, want %v", err, errNotRenewed)
	}
	close(release)
	apptest.Await(t, "work to return", returned)
}

func TestTheLeaseIsKeptIfOperationsAreLeft(t *testing.T) {
	t.Parallel()
	failure := errors.New("cannot work")
	for name, test := range map[string]struct{ work, want error }{
		"operations are left": {ErrOperationsLeft, nil},
		"work has failed":     {failure, failure},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewSimpleClientset()
			e := quickElector(t, client)
			err := e.Run(t.Context(), func(context.Context) error { return test.work })
			if !errors.Is(err, test.want) || err != nil && test.want == nil {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if got := holder(t, client); got != e.lock.identity {
				t.Errorf("the lease is held by %q, want %q", got, e.lock.identity)
			}
		})
	}
}

func TestAStopWhileWaitingForTheLeaseIsNoFailure(t *testing.T) {
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
		ended <- e.Run(ctx, func(context.Context) error { t.Error("work runs, but another process leads"); return nil })
	}()
	apptest.Await(t, "the first read of the lease", waiting)
	apptest.Await(t, "another read of the lease", waiting)
	cancel()
	if err := apptest.Await(t, "the end", ended); err != nil {
		t.Error(err)
	}
	if got := holder(t, client); got != "other" {
		t.Errorf("the lease is held by %q, want other", got)
	}
}

func TestWorkDoesNotBeginAfterAStopDuringAcquisition(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	e := quickElector(t, client)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	onLeases(client, "create", func() error { cancel(); return nil })
	if err := e.Run(ctx, func(context.Context) error { t.Error("work runs after the stop"); return nil }); err != nil {
		t.Error(err)
	}
	if got := holder(t, client); got != "" {
		t.Errorf("the lease is still held by %q", got)
	}
}

func TestAReleasedLeaseIsAcquired(t *testing.T) {
	t.Parallel()
	lease := othersLease()
	lease.Spec.HolderIdentity = ptr.To("")
	client := fake.NewSimpleClientset(lease)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	worked := false
	if err := quickElector(t, client).Run(ctx, func(context.Context) error { worked = true; cancel(); return nil }); err != nil || !worked {
		t.Errorf("worked: %t, %v", worked, err)
	}
}

func TestWorkRunsWithoutLeaderElection(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	opts := testOptions()
	opts.Enabled = false
	e, err := New(opts, "ceph.com/rbd", client, func(reason error) { t.Errorf("unexpected exit: %v", reason) })
	if err != nil {
		t.Fatal(err)
	}
	worked := false
	if err := e.Run(t.Context(), func(context.Context) error { worked = true; return nil }); err != nil || !worked {
		t.Errorf("worked: %t, %v", worked, err)
	}
	if got := client.Actions(); len(got) > 0 {
		t.Errorf("requests without leader election: %v", got)
	}
	if err := e.Check(nil); err != nil {
		t.Errorf("not live: %v", err)
	}
}

func TestALeaderWithAnExpiredLeaseIsNotLive(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	e := quickElector(t, client)
	// With a grace period of minus one hour, every held lease has expired.
	e.watchdog = leaderelection.NewLeaderHealthzAdaptor(-time.Hour)
	if err := e.Check(nil); err != nil {
		t.Errorf("not live before it leads: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// The check runs during a renewal, because client-go does not synchronise the two.
	onLeases(client, "update", func() error {
		if ctx.Err() != nil {
			return nil // the lease is being released
		}
		defer cancel()
		if err := e.Check(nil); err == nil {
			t.Error("live, but the lease has expired")
		}
		return nil
	})
	if err := e.Run(ctx, func(ctx context.Context) error { <-ctx.Done(); return nil }); err != nil {
		t.Error(err)
	}
	if err := e.Check(nil); err != nil {
		t.Errorf("not live after it has led: %v", err)
	}
}
