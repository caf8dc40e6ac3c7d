package leadership

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// ErrOperationsLeft is returned by work that has stopped before all its operations have ended. The
// lease is not released then: the next leader must wait until it expires, and fence this process.
var ErrOperationsLeft = errors.New("operations have not ended")

// Elector runs work while it holds the lease. Without leader election, it runs work immediately.
type Elector struct {
	lock     *leaseLock // nil without leader election
	config   leaderelection.LeaderElectionConfig
	watchdog *leaderelection.HealthzAdaptor
}

// livenessGracePeriod is the time after the expiry of the lease, after which the liveness check of a
// process fails that has not noticed it.
const livenessGracePeriod = 20 * time.Second

// New returns an Elector that calls exit when the lease is lost. The client should have the
// configuration of ClientConfig.
func New(opts *Options, provisioner string, client kubernetes.Interface, exit func(reason error)) (*Elector, error) {
	if !opts.Enabled {
		return &Elector{}, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("get the host name for the lease: %w", err)
	}
	lock := &leaseLock{
		leases:    client.CoordinationV1().Leases(opts.Namespace),
		namespace: opts.Namespace, name: LeaseName(provisioner),
		identity: host + "_" + string(uuid.NewUUID()),
		validFor: opts.lossNoticed(), exit: exit,
		requestSlot: make(chan struct{}, 1),
	}
	watchdog := leaderelection.NewLeaderHealthzAdaptor(livenessGracePeriod)
	return &Elector{
		lock: lock, watchdog: watchdog,
		// ReleaseOnCancel is not set: client-go would release the lease also when it could not be
		// renewed, while work is still running.
		config: leaderelection.LeaderElectionConfig{
			Lock: lock, Name: lock.name, WatchDog: watchdog,
			LeaseDuration: opts.LeaseDuration, RenewDeadline: opts.RenewDeadline, RetryPeriod: opts.RetryPeriod,
		},
	}, nil
}

// CephClients returns the record of Ceph clients in the lease, or nil without leader election.
func (e *Elector) CephClients(events record.EventRecorder, count func(result string, n int)) rbdutil.Clients {
	if e.lock == nil {
		return nil
	}
	return &clientRegistry{lock: e.lock, events: events, count: count}
}

// Check fails if the lease has expired and this process has not noticed it.
func (e *Elector) Check(r *http.Request) error {
	if e.lock == nil || !e.lock.holds() {
		return nil
	}
	return e.watchdog.Check(r)
}

// Run calls work when this process leads, with a context that is done when ctx is. It releases the
// lease after work has returned without an error. If the lease is lost, it exits while work is running.
func (e *Elector) Run(ctx context.Context, work func(context.Context) error) error {
	if e.lock == nil {
		return ignoreOperationsLeft(work(ctx))
	}
	ended, err := e.elect(ctx, work)
	if err != nil {
		return err
	}
	if reason := e.lock.lossReason(); reason != nil {
		return reason // only if the exit function of a test returns
	}
	if !e.lock.holds() {
		return nil // stopped before it led
	}
	if err := <-ended; err != nil {
		e.lock.stopLeading()
		return ignoreOperationsLeft(err)
	}
	if err := e.lock.release(context.WithoutCancel(ctx)); err != nil {
		klog.FromContext(ctx).Error(err, "Failed to release the lease, the next leader waits until it expires", "lease", e.lock.Describe())
	}
	return nil
}

// elect takes part in the election until one of the following:
//   - work has returned,
//   - ctx is done before work has begun,
//   - the lease is lost.
//
// If this process led, ended receives the error of work.
func (e *Elector) elect(ctx context.Context, work func(context.Context) error) (ended <-chan error, err error) {
	logger := klog.FromContext(ctx)
	// The election continues after ctx is done, until work has returned.
	electionCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	config := e.config
	started, result := make(chan struct{}), make(chan error, 1)
	config.Callbacks = leaderelection.LeaderCallbacks{
		OnStartedLeading: func(context.Context) {
			close(started)
			defer stop()
			if ctx.Err() != nil {
				result <- nil // stopped while the lease was being acquired
				return
			}
			logger.Info("Started leading", "lease", e.lock.Describe())
			result <- work(ctx)
		},
		OnStoppedLeading: func() {
			if electionCtx.Err() == nil {
				_ = e.lock.lose(errNotRenewed)
			}
		},
		OnNewLeader: func(identity string) {
			logger.Info("Observed a new leader", "leader", identity)
		},
	}
	election, err := leaderelection.NewLeaderElector(config)
	if err != nil {
		return nil, fmt.Errorf("create leader elector: %w", err)
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
	logger.Info("Started waiting for the lease", "lease", e.lock.Describe())
	election.Run(electionCtx)
	return result, nil
}

// ignoreOperationsLeft returns nil for ErrOperationsLeft, which is not a failure of the process.
func ignoreOperationsLeft(err error) error {
	if errors.Is(err, ErrOperationsLeft) {
		return nil
	}
	return err
}
