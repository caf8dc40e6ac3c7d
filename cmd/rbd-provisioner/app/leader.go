package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// errWorkLeft is an error of work that has left operations behind. The lease is not given back
// then: the next leader has to wait until it has run out, and to fence this process.
var errWorkLeft = errors.New("operations were left behind")

// elector runs work while it holds the lease. Without leader election it just runs it.
type elector struct {
	lock     *leaseLock // nil: no election
	config   leaderelection.LeaderElectionConfig
	watchdog *leaderelection.HealthzAdaptor
}

// livenessGrace is how long after the lease has run out a process that has not
// noticed is called dead.
const livenessGrace = 20 * time.Second

// newElector returns an elector that calls exit when the lease was lost. Its client must not be
// that of the work, which may be throttled.
func newElector(opts *Options, client kubernetes.Interface, exit func(reason error)) (*elector, error) {
	if !opts.LeaderElection.Enabled {
		return &elector{}, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name this process in the lease: %w", err)
	}
	le := opts.LeaderElection
	lock := &leaseLock{
		leases:    client.CoordinationV1().Leases(le.Namespace),
		namespace: le.Namespace, name: leaseName(opts.ProvisionerName),
		identity: host + "_" + string(uuid.NewUUID()),
		validFor: le.lossNoticed(), exit: exit,
		turn: make(chan struct{}, 1),
	}
	watchdog := leaderelection.NewLeaderHealthzAdaptor(livenessGrace)
	return &elector{
		lock: lock, watchdog: watchdog,
		// ReleaseOnCancel is not set: client-go would give the lease back also when it could
		// not be renewed, while work still runs.
		config: leaderelection.LeaderElectionConfig{
			Lock: lock, Name: lock.name, WatchDog: watchdog,
			LeaseDuration: le.LeaseDuration, RenewDeadline: le.RenewDeadline, RetryPeriod: le.RetryPeriod,
		},
	}, nil
}

// clients returns the lease's record of connections to Ceph; nil without an election.
func (e *elector) clients(events record.EventRecorder, count func(result string, n int)) rbdutil.Clients {
	if e.lock == nil {
		return nil
	}
	return &registry{lock: e.lock, events: events, count: count}
}

// leaseName is what the library, too, calls the lease of a provisioner.
func leaseName(provisioner string) string { return strings.ReplaceAll(provisioner, "/", "-") }

// check fails when the lease has run out without this process noticing.
func (e *elector) check() check {
	return check{name: "leader-election", run: func(r *http.Request) error {
		if e.lock == nil || !e.lock.holds() {
			return nil
		}
		return e.watchdog.Check(r)
	}}
}

// run calls work once it leads, with a context that is done when ctx is. It gives the lease back
// after work has returned without an error. When the lease is lost, it exits while work runs.
func (e *elector) run(ctx context.Context, work func(context.Context) error) error {
	if e.lock == nil {
		return ignoreWorkLeft(work(ctx))
	}
	ended, err := e.elect(ctx, work)
	if err != nil {
		return err
	}
	if reason := e.lock.lossReason(); reason != nil {
		return reason // only where a test's exit returns
	}
	if !e.lock.holds() {
		return nil // stopped before it led
	}
	if err := <-ended; err != nil {
		e.lock.stopLeading()
		return ignoreWorkLeft(err)
	}
	if err := e.lock.release(context.WithoutCancel(ctx)); err != nil {
		klog.FromContext(ctx).Error(err, "Failed to give the lease back, the next leader waits until it has run out", "lease", e.lock.Describe())
	}
	return nil
}

// elect takes part in the election until work has returned, ctx is done before work has begun, or
// the lease is lost. When this process led, ended receives the error of work.
func (e *elector) elect(ctx context.Context, work func(context.Context) error) (ended <-chan error, err error) {
	logger := klog.FromContext(ctx)
	// The election outlives the signal, for as long as work takes to return.
	electionCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	config := e.config
	started, result := make(chan struct{}), make(chan error, 1)
	config.Callbacks = leaderelection.LeaderCallbacks{
		OnStartedLeading: func(context.Context) {
			close(started)
			defer stop()
			if ctx.Err() != nil {
				result <- nil // stopped while the lease was being taken
				return
			}
			logger.Info("Leading", "lease", e.lock.Describe())
			result <- work(ctx)
		},
		OnStoppedLeading: func() {
			if electionCtx.Err() == nil {
				_ = e.lock.lose(errNotRenewed)
			}
		},
		OnNewLeader: func(identity string) {
			logger.Info("Leader is known", "leader", identity)
		},
	}
	election, err := leaderelection.NewLeaderElector(config)
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	e.watchdog.SetLeaderElection(election)
	go func() {
		<-ctx.Done()
		select {
		case <-started: // the election stops when work has returned
		default:
			stop()
		}
	}()
	logger.Info("Waiting to lead", "lease", e.lock.Describe())
	election.Run(electionCtx)
	return result, nil
}

// ignoreWorkLeft returns nil for errWorkLeft: a stop that leaves operations behind is no failure.
func ignoreWorkLeft(err error) error {
	if errors.Is(err, errWorkLeft) {
		return nil
	}
	return err
}
