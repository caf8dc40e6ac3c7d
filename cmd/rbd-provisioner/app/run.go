package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/leadership"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/poollimit"
)

// idleTimeout is the time after which an unused connection to Ceph is closed.
const idleTimeout = 10 * time.Minute

// Limits of each pool, so that one pool does not block the others.
const (
	poolLimit   = 16              // concurrent operations: enough to use a healthy pool fully
	poolMaxWait = 2 * time.Second // how long operations wait for a pool that does not respond
)

// Run provisions and deletes volumes until ctx is done. Then it stops in this order:
//  1. It rejects new operations and waits for running operations.
//  2. It closes the connections to Ceph.
//  3. It releases the lease.
//
// Its error is a failure to start or to lead. It calls exit if the lease is lost.
func Run(ctx context.Context, opts *Options, newStore func(StoreOptions) Store, exit func(code int)) error {
	logger := klog.FromContext(ctx)
	logger.Info("Started rbd-provisioner", "provisioner", opts.ProvisionerName, "version", version)
	clients, err := newClients(opts)
	if err != nil {
		return err
	}
	metrics := newMetrics()
	events := newEvents(ctx, clients.work, opts.ProvisionerName)
	defer events.shutdown()
	exiter := leadership.NewExiter(exit)
	elector, err := leadership.New(&opts.LeaderElection, opts.ProvisionerName, clients.lease, exiter.Exit)
	if err != nil {
		return err
	}
	limiter := poollimit.New(poolLimit, poolMaxWait)
	store := newStore(StoreOptions{
		// Calls of Ceph time out before the operation does, so that the event contains the error of Ceph.
		Timeout: opts.Timeout / 2, IdleTimeout: idleTimeout,
		Observe: metrics.observe, ConnectionsChanged: metrics.connectionsChanged,
		Limiter:     limiter,
		Clients:     elector.CephClients(events.recorder, metrics.clientsFenced),
		Blocklisted: func(err error) { exiter.Exit(blocklistedError(err)) },
	})
	closeStore := sync.OnceFunc(store.Close)
	defer closeStore()
	images := rbdutil.NewImages(store)

	informers, err := newInformers(clients.work, opts.ResyncPeriod)
	if err != nil {
		return err
	}
	server, err := startHTTP(ctx, opts, metrics.registry, health{
		live:  []check{leaderElectionCheck(elector)},
		ready: []check{informers.check(), cephCheck(limiter)},
	})
	if err != nil {
		return err
	}
	defer server.stop(ctx)

	if opts.ClusterID == "" {
		id, err := clusterID(ctx, clients.work, forbiddenGracePeriod)
		switch {
		case ctx.Err() != nil:
			return nil // stopped while waiting
		case err != nil:
			return err
		}
		opts.ClusterID = id
	}
	// The informers must not be started before, because the library adds an index to them.
	controllers := newControllers(ctx, opts, deps{clients.work, informers, images, events.recorder, metrics})
	informers.start(ctx)
	return elector.Run(ctx, func(ctx context.Context) error {
		defer closeStore() // before the lease is released
		return controllers.run(ctx)
	})
}

// blocklistedError explains why Ceph rejects this process. The process must exit: with new connections,
// it would change images at the same time as the process that has fenced it.
func blocklistedError(err error) error {
	return fmt.Errorf("%w: a new leader has fenced this process, or an administrator has blocklisted it: list the addresses with `ceph osd blocklist ls`", err)
}
