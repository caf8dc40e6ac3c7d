package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// errLeaseLost ends the process: another may lead by now, and calls inside Ceph
// cannot be taken back.
var errLeaseLost = errors.New("the lease was lost: it could not be renewed in time")

// elector runs work while it holds the lease. Without leader election it just runs it.
type elector struct {
	config   *leaderelection.LeaderElectionConfig // nil: no election
	watchdog *leaderelection.HealthzAdaptor
}

// livenessGrace is how long after the lease has run out a process that has not
// noticed is called dead.
const livenessGrace = 20 * time.Second

// newElector uses a client of its own, so that a busy provisioner does not starve
// its own lease.
func newElector(opts *Options, client kubernetes.Interface) (*elector, error) {
	if !opts.LeaderElection.Enabled {
		return &elector{}, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name this process in the lease: %w", err)
	}
	le := opts.LeaderElection
	name := leaseName(opts.ProvisionerName)
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, le.Namespace, name,
		client.CoreV1(), client.CoordinationV1(),
		resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())})
	if err != nil {
		return nil, fmt.Errorf("lease %s/%s: %w", le.Namespace, name, err)
	}
	watchdog := leaderelection.NewLeaderHealthzAdaptor(livenessGrace)
	return &elector{
		watchdog: watchdog,
		config: &leaderelection.LeaderElectionConfig{
			Lock: releasableLock{lock}, Name: name, WatchDog: watchdog,
			LeaseDuration: le.LeaseDuration, RenewDeadline: le.RenewDeadline, RetryPeriod: le.RetryPeriod,
			ReleaseOnCancel: true,
		},
	}, nil
}

// releasableLock can be given back at any moment. The election cancels a renewal that
// is under way when it ends; if that has got through all the same, client-go gives
// back a version of the lease that is none any more, and the next leader waits until
// it runs out.
type releasableLock struct{ resourcelock.Interface }

// Update implements resourcelock.Interface.
func (l releasableLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := l.Interface.Update(ctx, record)
	if release := record.HolderIdentity == ""; !release || !apierrors.IsConflict(err) {
		return err
	}
	// Get also has the lock remember the version for the next Update.
	if now, _, getErr := l.Get(ctx); getErr != nil || now.HolderIdentity != l.Identity() {
		return err
	}
	return l.Interface.Update(ctx, record)
}

// leaseName is what the library, too, calls the lease of a provisioner.
func leaseName(provisioner string) string { return strings.ReplaceAll(provisioner, "/", "-") }

// check fails when the lease has run out without this process noticing.
func (e *elector) check() check {
	return check{name: "leader-election", run: func(r *http.Request) error {
		if e.watchdog == nil {
			return nil
		}
		return e.watchdog.Check(r)
	}}
}

// run calls work once it leads, with a context that is done when ctx is. The lease
// is given back after work has returned, so that no two ever work at once.
func (e *elector) run(ctx context.Context, work func(context.Context)) error {
	if e.config == nil {
		work(ctx)
		return nil
	}
	logger := klog.FromContext(ctx)
	// The election outlives the signal, for as long as work takes to return.
	electionCtx, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	config := *e.config
	started := make(chan struct{})
	config.Callbacks = leaderelection.LeaderCallbacks{
		OnStartedLeading: func(context.Context) {
			close(started)
			defer release()
			if ctx.Err() != nil {
				return // told to stop while the lease was being taken; it may be released already
			}
			logger.Info("Leading", "lease", config.Lock.Describe())
			work(ctx)
		},
		OnStoppedLeading: func() {},
		OnNewLeader: func(identity string) {
			logger.Info("Leader is known", "leader", identity)
		},
	}
	election, err := leaderelection.NewLeaderElector(config)
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	e.watchdog.SetLeaderElection(election)
	go func() {
		<-ctx.Done()
		select {
		case <-started: // work returns by itself, and then releases
		default:
			release()
		}
	}()
	logger.Info("Waiting to lead", "lease", config.Lock.Describe())
	election.Run(electionCtx)
	if electionCtx.Err() == nil {
		return errLeaseLost
	}
	return nil
}
