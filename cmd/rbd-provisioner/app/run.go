package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/poollimit"
)

// idleTimeout is how long a connection to Ceph is kept without use.
const idleTimeout = 10 * time.Minute

// How much of the work may be for one pool: as many operations at a time as keep a
// healthy one busy, and how long others wait for it without an answer.
const (
	poolLimit   = 16
	poolMaxWait = 2 * time.Second
)

// Run provisions and deletes until ctx is done, and then stops in order: no new
// work, an end to what runs, the connections closed, the lease given back. Its error
// is a failure to start or to lead. It calls exit when the lease was lost.
func Run(ctx context.Context, opts *Options, newStore func(StoreOptions) Store, exit func(code int)) error {
	logger := klog.FromContext(ctx)
	logger.Info("Starting", "provisioner", opts.ProvisionerName, "version", version)
	clients, err := newClients(opts)
	if err != nil {
		return err
	}
	metrics := newMetrics()
	events := newEvents(ctx, clients.work, opts.ProvisionerName)
	defer events.shutdown()
	atOnce := &exiter{exit: exit}
	elector, err := newElector(opts, clients.lease, atOnce.now)
	if err != nil {
		return err
	}
	limiter := poollimit.New(poolLimit, poolMaxWait)
	store := newStore(StoreOptions{
		// Ceph gives up before the claim is told that it has not answered, so that
		// the claim is told why.
		Timeout: opts.Timeout / 2, IdleTimeout: idleTimeout,
		Observe: metrics.observe, ConnectionsChanged: metrics.connectionsChanged,
		Limiter:     limiter,
		Clients:     elector.clients(events.recorder, metrics.clientsFenced),
		Blocklisted: func(err error) { atOnce.now(blocklistedError(err)) },
	})
	closeStore := sync.OnceFunc(store.Close)
	defer closeStore()
	images := rbdutil.NewImages(store)

	informers, err := newInformers(clients.work, opts.ResyncPeriod)
	if err != nil {
		return err
	}
	server, err := startHTTP(ctx, opts, metrics.registry, health{
		live:  []check{elector.check()},
		ready: []check{informers.check(), cephCheck(limiter)},
	})
	if err != nil {
		return err
	}
	defer server.stop(ctx)

	if opts.ClusterID == "" {
		id, err := clusterID(ctx, clients.work, refusalGrace)
		switch {
		case ctx.Err() != nil:
			return nil // told to stop while waiting
		case err != nil:
			return err
		}
		opts.ClusterID = id
	}
	// Before the informers start: the library adds an index to them.
	replica := newReplica(ctx, opts, parts{clients.work, informers, images, events.recorder, metrics})
	informers.start(ctx)
	return elector.run(ctx, func(ctx context.Context) error {
		defer closeStore() // before the lease is given back
		return replica.lead(ctx)
	})
}

// blocklistedError says why Ceph refuses this process. With new connections, it would go on beside
// the process that has fenced it, so it exits.
func blocklistedError(err error) error {
	return fmt.Errorf("%w: another process has taken over and fenced this one, or an administrator has; `ceph osd blocklist ls` lists the addresses", err)
}

// refusalGrace is how long an API server may refuse us that has just been started: it
// answers before it has read who may do what.
const refusalGrace = 30 * time.Second

// clusterID returns what is commonly taken for a cluster's id. It waits for an API
// server that cannot be reached yet, and for the time of grace for one that refuses.
func clusterID(ctx context.Context, client kubernetes.Interface, grace time.Duration) (string, error) {
	const pause = 2 * time.Second
	var id string
	begun := time.Now()
	err := wait.PollUntilContextCancel(ctx, pause, true, func(ctx context.Context) (bool, error) {
		namespace, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		switch {
		case apierrors.IsForbidden(err) && time.Since(begun) < grace:
			klog.FromContext(ctx).Error(err, "Waiting for the Kubernetes API server to allow it")
			return false, nil
		case apierrors.IsForbidden(err), apierrors.IsNotFound(err), apierrors.IsUnauthorized(err):
			return false, fmt.Errorf("read the UID of namespace %s (or give --cluster-id): %w", metav1.NamespaceSystem, err)
		case err != nil:
			klog.FromContext(ctx).Error(err, "Waiting for the Kubernetes API server")
			return false, nil
		}
		id = string(namespace.UID)
		return true, nil
	})
	return id, err
}
