package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/leadership"
	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/library"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/cleanup"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/expansion"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// controllers are what runs while this process leads.
type controllers struct {
	timeout   time.Duration
	informers *informers
	inFlight  *library.InFlight
	library   *controller.ProvisionController
	trash     *cleanup.TrashCleaner
	orphans   *cleanup.OrphanCollector
	expansion *expansion.Controller
	workers   int
}

// deps are the dependencies of the controllers.
type deps struct {
	client    kubernetes.Interface
	informers *informers
	images    *rbdutil.Images
	events    record.EventRecorder
	metrics   *metrics
}

func newControllers(ctx context.Context, opts *Options, with deps) *controllers {
	client, informers, images, events := with.client, with.informers, with.images, with.events
	inFlight, deletions := &library.InFlight{}, &library.ConfirmedDeletions{}
	clusters := provisioner.Clusters{
		Provisioner: opts.ProvisionerName, ClusterID: opts.ClusterID, Identities: opts.PredecessorIdentities,
		Secrets: client.CoreV1(), Classes: informers.classes.Lister(),
	}
	trash := cleanup.NewTrashCleaner(cleanup.TrashCleanerConfig{
		Images: images, Maker: clusters.Maker(),
		Index: informers.volumes.Informer().GetIndexer(), Live: client.CoreV1(),
		Begin: inFlight.Begin, Events: events,
	})
	p := provisioner.New(provisioner.Config{
		Clusters: clusters, Timeout: opts.Timeout, Images: images, Trash: trash,
		Live: client.CoreV1(), Confirmed: deletions.Add, Index: informers.volumes.Informer().GetIndexer(),
		Nodes: informers.nodes.Lister(), Claims: informers.claims.Lister(), Volumes: informers.volumes.Lister(),
		Events: events,
	})
	c := &controllers{timeout: opts.Timeout, informers: informers, inFlight: inFlight, trash: trash, workers: opts.WorkerThreads}
	creates := library.PVCreateObserver{Succeeded: inFlight.MarkSaved, Failed: recordCreateFailure(events)}
	c.library = newLibrary(klog.FromContext(ctx), opts,
		library.Client{Interface: client, Creates: creates, Deletions: deletions, CheckFinalizer: trash.MayRelease},
		library.Provisioner{BlockProvisioner: p, InFlight: inFlight}, informers, with.metrics)
	c.orphans = cleanup.NewOrphanCollector(cleanup.OrphanCollectorConfig{
		Clusters: clusters, Timeout: opts.Timeout, Images: images, Trash: trash,
		Claims: informers.claims.Lister(), Volumes: informers.volumes.Lister(), Live: client.CoreV1(), Events: events,
		Reserve: inFlight.TryReserve, Grace: opts.OrphanGrace, Clock: clock.RealClock{},
		OrphansChanged: with.metrics.orphansChanged,
	})
	c.expansion = expansion.New(expansion.Config{
		Clusters: clusters, Timeout: opts.Timeout, Images: images, Client: client.CoreV1(),
		Claims: informers.claims.Lister(), Volumes: informers.volumes.Lister(), Events: events,
		Begin: inFlight.Begin, Limiter: retries(opts),
	})
	return c
}

// run runs the controllers until ctx is done, and then waits for the operations that have begun. It
// returns leadership.ErrOperationsLeft, or why the controllers could not be started.
func (c *controllers) run(ctx context.Context) error {
	// The library does not wait for the nodes. If a node is not in the cache, its volumes seem to be
	// unused, and claims with this selected node are returned to the scheduler.
	if !c.informers.wait(ctx) {
		return nil
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if err := errors.Join(c.trash.Watch(ctx, c.informers.volumes.Informer()), c.informers.attachHandlers()); err != nil {
		return fmt.Errorf("add event handlers for PersistentVolumeClaims and PersistentVolumes: %w", err)
	}
	var others sync.WaitGroup
	for _, run := range []func(){
		func() { c.orphans.Run(ctx) },
		func() {
			if err := c.expansion.Run(ctx, c.informers.claims.Informer(), c.workers); err != nil {
				fail(fmt.Errorf("add the event handler of expansion for PersistentVolumeClaims: %w", err))
			}
		},
	} {
		others.Add(1)
		go func() {
			defer others.Done()
			run()
		}()
	}
	left := c.runLibrary(ctx)
	others.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return left
}

// runLibrary returns leadership.ErrOperationsLeft if operations are left after the timeout.
func (c *controllers) runLibrary(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	// The context of the library ends after the operations, not at the signal, so that running
	// operations can end.
	libraryCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.library.Run(libraryCtx)
	}()
	<-ctx.Done()
	logger.Info("Stopped accepting operations, waiting for running operations")
	drained, cancel := context.WithTimeout(libraryCtx, c.timeout)
	defer cancel()
	left := c.inFlight.Drain(drained)
	stop()
	<-stopped
	if left > 0 {
		logger.Info("Stopped before all operations have ended, not releasing the lease", "operations", left)
		return leadership.ErrOperationsLeft
	}
	return nil
}

// retries returns the backoff of failed claims and volumes.
func retries(opts *Options) workqueue.RateLimiter {
	return workqueue.NewItemExponentialFailureRateLimiter(opts.RetryIntervalStart, opts.RetryIntervalMax)
}

// newLibrary configures the library without leader election, a metrics server or a limit of retries.
func newLibrary(logger klog.Logger, opts *Options, client kubernetes.Interface, p controller.Provisioner, informers *informers, metrics *metrics) *controller.ProvisionController {
	return controller.NewProvisionController(logger, client, opts.ProvisionerName, p,
		// The leader election of the library exits with an error at every SIGTERM.
		controller.LeaderElection(false),
		// Retry without limit: if the library stops retrying a claim, the image is orphaned.
		controller.FailedProvisionThreshold(0),
		controller.FailedDeleteThreshold(0),
		controller.RateLimiter(retries(opts)),
		// Retry saving volumes in the background. Without this option, the library deletes the
		// image of a volume that it could not save.
		controller.CreateProvisionedPVLimiter(retries(opts)),
		controller.Threadiness(opts.WorkerThreads),
		controller.AddFinalizer(true),
		controller.ClaimsInformer(informers.libraryClaims),
		controller.VolumesInformer(library.ReadOnlyStore{SharedIndexInformer: informers.libraryVolumes}),
		controller.ClassesInformer(informers.classes.Informer()),
		controller.NodesLister(informers.nodes.Lister()),
		controller.MetricsInstance(metrics.library),
		controller.ResyncPeriod(opts.ResyncPeriod),
	)
}
