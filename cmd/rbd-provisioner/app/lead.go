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

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/cleanup"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/expansion"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// replica is all that works while this process leads.
type replica struct {
	timeout   time.Duration
	informers *informers
	work      *drainer
	library   *controller.ProvisionController
	trash     *cleanup.TrashCleaner
	orphans   *cleanup.OrphanCollector
	expansion *expansion.Controller
	workers   int
}

// parts are what a replica is put together from.
type parts struct {
	client    kubernetes.Interface
	informers *informers
	images    *rbdutil.Images
	events    record.EventRecorder
	metrics   *metrics
}

func newReplica(ctx context.Context, opts *Options, with parts) *replica {
	client, informers, images, events := with.client, with.informers, with.images, with.events
	work, deletions := &drainer{}, &confirmedDeletions{}
	clusters := provisioner.Clusters{
		Provisioner: opts.ProvisionerName, ClusterID: opts.ClusterID, Identities: opts.PredecessorIdentities,
		Secrets: client.CoreV1(), Classes: informers.classes.Lister(),
	}
	trash := cleanup.NewTrashCleaner(cleanup.TrashCleanerConfig{
		Images: images, Maker: clusters.Maker(),
		Index: informers.volumes.Informer().GetIndexer(), Live: client.CoreV1(),
		Begin: work.beginOther, Events: events,
	})
	p := provisioner.New(provisioner.Config{
		Clusters: clusters, Timeout: opts.Timeout, Images: images, Trash: trash,
		Live: client.CoreV1(), Confirmed: deletions.add, Index: informers.volumes.Informer().GetIndexer(),
		Nodes: informers.nodes.Lister(), Claims: informers.claims.Lister(), Volumes: informers.volumes.Lister(),
		Events: events,
	})
	work.Provisioner = p
	r := &replica{timeout: opts.Timeout, informers: informers, work: work, trash: trash, workers: opts.WorkerThreads}
	ofLibrary := libraryClient{client, saves{saved: r.work.saved, failed: tellClaim(events)}, deletions, trash.MayRelease}
	r.library = newLibrary(klog.FromContext(ctx), opts, ofLibrary, r.work, informers, with.metrics)
	r.orphans = cleanup.NewOrphanCollector(cleanup.OrphanCollectorConfig{
		Clusters: clusters, Timeout: opts.Timeout, Images: images, Trash: trash,
		Claims: informers.claims.Lister(), Volumes: informers.volumes.Lister(), Live: client.CoreV1(), Events: events,
		Reserve: r.work.reserve, Grace: opts.OrphanGrace, Clock: clock.RealClock{},
		OrphansChanged: with.metrics.orphansChanged,
	})
	r.expansion = expansion.New(expansion.Config{
		Clusters: clusters, Timeout: opts.Timeout, Images: images, Client: client.CoreV1(),
		Claims: informers.claims.Lister(), Volumes: informers.volumes.Lister(), Events: events,
		Begin: r.work.beginOther, Limiter: retries(opts),
	})
	return r
}

// lead works until ctx is done, and then waits for what has begun. Its error is errWorkLeft, or
// what has kept it from working.
func (r *replica) lead(ctx context.Context) error {
	// The library does not wait for the nodes. Without them no volume is known to be in
	// use, and a claim whose node is not known is sent back to the scheduler.
	if !r.informers.wait(ctx) {
		return nil
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if err := errors.Join(r.trash.Watch(ctx, r.informers.volumes.Informer()), r.informers.attachHandlers()); err != nil {
		return fmt.Errorf("add event handlers for PersistentVolumeClaims and PersistentVolumes: %w", err)
	}
	var beside sync.WaitGroup
	for _, run := range []func(){
		func() { r.orphans.Run(ctx) },
		func() {
			if err := r.expansion.Run(ctx, r.informers.claims.Informer(), r.workers); err != nil {
				fail(fmt.Errorf("add the event handler of expansion for PersistentVolumeClaims: %w", err))
			}
		},
	} {
		beside.Add(1)
		go func() {
			defer beside.Done()
			run()
		}()
	}
	left := r.runLibrary(ctx)
	beside.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return left
}

// runLibrary returns errWorkLeft if operations are left after the timeout.
func (r *replica) runLibrary(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	// The library's context ends after the work, not with the signal: what runs
	// is not to be cut.
	libraryCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.library.Run(libraryCtx)
	}()
	<-ctx.Done()
	logger.Info("Stopping, once the operations that run have ended")
	drained, cancel := context.WithTimeout(libraryCtx, r.timeout)
	defer cancel()
	left := r.work.drain(drained)
	stop()
	<-stopped
	if left > 0 {
		logger.Info("Stopped before all operations have ended, not giving the lease back", "operations", left)
		return errWorkLeft
	}
	return nil
}

// retries says when what has failed is tried again.
func retries(opts *Options) workqueue.RateLimiter {
	return workqueue.NewItemExponentialFailureRateLimiter(opts.RetryIntervalStart, opts.RetryIntervalMax)
}

// newLibrary sets the library up so that it keeps out of what we do ourselves:
// leader election, metrics, giving up.
func newLibrary(logger klog.Logger, opts *Options, client kubernetes.Interface, work controller.Provisioner, informers *informers, metrics *metrics) *controller.ProvisionController {
	return controller.NewProvisionController(logger, client, opts.ProvisionerName, work,
		// The library's own ends the process with an error at every SIGTERM.
		controller.LeaderElection(false),
		// Never give up: a claim that is given up leaks its image.
		controller.FailedProvisionThreshold(0),
		controller.FailedDeleteThreshold(0),
		controller.RateLimiter(retries(opts)),
		// Save volumes in the background for as long as it takes. Without it, the
		// library deletes the image of a volume that it could not save.
		controller.CreateProvisionedPVLimiter(retries(opts)),
		controller.Threadiness(opts.WorkerThreads),
		controller.AddFinalizer(true),
		controller.ClaimsInformer(informers.claimEvents),
		controller.VolumesInformer(observedVolumes{informers.volumeEvents}),
		controller.ClassesInformer(informers.classes.Informer()),
		controller.NodesLister(informers.nodes.Lister()),
		controller.MetricsInstance(metrics.library),
		controller.ResyncPeriod(opts.ResyncPeriod),
	)
}
