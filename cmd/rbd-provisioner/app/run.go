package app

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// idleTimeout is how long a connection to Ceph is kept without use.
const idleTimeout = 10 * time.Minute

// Run provisions and deletes until ctx is done, and then stops in order: no new
// work, an end to what runs, the lease given back. Its error is a failure to start
// or the loss of the lease.
func Run(ctx context.Context, opts *Options, newStore func(StoreOptions) Store) error {
	logger := klog.FromContext(ctx)
	logger.Info("Starting", "provisioner", opts.ProvisionerName, "version", version)
	clients, err := newClients(opts)
	if err != nil {
		return err
	}
	metrics := newMetrics()
	store := newStore(StoreOptions{
		// Ceph gives up before the claim is told that it has not answered, so that
		// the claim is told why.
		Timeout: opts.Timeout / 2, IdleTimeout: idleTimeout,
		Observe: metrics.observe, ConnectionsChanged: metrics.connectionsChanged,
	})
	defer store.Close()

	informers := newInformers(clients.work, opts.ResyncPeriod)
	elector, err := newElector(opts, clients.lease)
	if err != nil {
		return err
	}
	server, err := startHTTP(ctx, opts, metrics.registry, health{
		live:  []check{elector.check()},
		ready: []check{informers.check()},
	})
	if err != nil {
		return err
	}
	defer server.stop(ctx)

	if opts.ClusterID == "" {
		id, err := clusterID(ctx, clients.work)
		switch {
		case ctx.Err() != nil:
			return nil // told to stop while waiting
		case err != nil:
			return err
		}
		opts.ClusterID = id
	}
	events := newEvents(ctx, clients.work, opts.ProvisionerName)
	defer events.shutdown()
	work := &drainer{Provisioner: provisioner.New(provisioner.Config{
		Name: opts.ProvisionerName, ClusterID: opts.ClusterID, Timeout: opts.Timeout,
		Images:  rbdutil.NewImages(store),
		Secrets: clients.work.CoreV1(),
		Classes: informers.classes.Lister(), Nodes: informers.nodes.Lister(),
		Events: events.recorder,
	})}
	// Before the informers start: the library adds an index and handlers to them.
	library := newLibrary(logger, opts, clients.work, work, informers, metrics)
	informers.start(ctx)
	return elector.run(ctx, func(ctx context.Context) {
		lead(ctx, opts, informers, library, work)
	})
}

// lead runs the library until ctx is done, and then waits for what has begun.
func lead(ctx context.Context, opts *Options, informers *informers, library *controller.ProvisionController, work *drainer) {
	// The library does not wait for the nodes. Without them no volume is known to be in
	// use, and a claim whose node is not known is sent back to the scheduler.
	if !informers.wait(ctx) {
		return
	}
	// The library's context ends after the work, not with the signal: what runs
	// is not to be cut.
	libraryCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		library.Run(libraryCtx)
	}()
	<-ctx.Done()
	klog.FromContext(ctx).Info("Stopping, once the operations that run have ended")
	drained, cancel := context.WithTimeout(libraryCtx, opts.Timeout)
	defer cancel()
	if left := work.drain(drained); left > 0 {
		klog.FromContext(ctx).Info("Not waiting any longer; the next leader finishes what is left", "operations", left)
	}
	stop()
	<-stopped
}

// newLibrary sets the library up so that it keeps out of what we do ourselves:
// leader election, metrics, giving up.
func newLibrary(logger klog.Logger, opts *Options, client kubernetes.Interface, work controller.Provisioner, informers *informers, metrics *metrics) *controller.ProvisionController {
	limiter := func() workqueue.RateLimiter {
		return workqueue.NewItemExponentialFailureRateLimiter(opts.RetryIntervalStart, opts.RetryIntervalMax)
	}
	return controller.NewProvisionController(logger, client, opts.ProvisionerName, work,
		// The library's own ends the process with an error at every SIGTERM.
		controller.LeaderElection(false),
		// Never give up: a claim that is given up leaks its image.
		controller.FailedProvisionThreshold(0),
		controller.FailedDeleteThreshold(0),
		controller.RateLimiter(limiter()),
		// Save volumes in the background for as long as it takes. Without it, the
		// library deletes the image of a volume that it could not save.
		controller.CreateProvisionedPVLimiter(limiter()),
		controller.Threadiness(opts.WorkerThreads),
		controller.AddFinalizer(true),
		controller.ClaimsInformer(informers.claims.Informer()),
		controller.VolumesInformer(observedVolumes{informers.volumes.Informer()}),
		controller.ClassesInformer(informers.classes.Informer()),
		controller.NodesLister(informers.nodes.Lister()),
		controller.MetricsInstance(metrics.library),
		controller.ResyncPeriod(opts.ResyncPeriod),
	)
}

// clusterID returns what is commonly taken for a cluster's id. It waits for an API
// server that cannot be reached yet.
func clusterID(ctx context.Context, client kubernetes.Interface) (string, error) {
	const pause = 2 * time.Second
	var id string
	err := wait.PollUntilContextCancel(ctx, pause, true, func(ctx context.Context) (bool, error) {
		namespace, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		switch {
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
