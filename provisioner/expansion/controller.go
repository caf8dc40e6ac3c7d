package expansion

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Images expands RBD images.
type Images interface {
	Expand(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, size uint64, precondition rbdutil.Precondition) (rbdutil.Image, error)
}

// Config configures a Controller.
type Config struct {
	Clusters provisioner.Clusters
	// Timeout limits one expansion.
	Timeout time.Duration
	Images  Images
	Client  corev1client.CoreV1Interface
	Claims  corelisters.PersistentVolumeClaimLister
	Volumes corelisters.PersistentVolumeLister
	Events  record.EventRecorder
	// Begin is called before each expansion, and the function that it returns after it.
	// Begin returns false if no expansion may begin any more.
	Begin func() (end func(), ok bool)
	// Limiter sets the time of retries.
	Limiter workqueue.RateLimiter
}

// Controller expands the volumes of claims that request more than they have: first the
// image, then the capacity of the PersistentVolume. The kubelet expands the file system.
//
// The expand controller of Kubernetes also tries to expand each rbd volume, and fails
// because it has no rbd command. It stops when the PersistentVolume is large enough. Each
// step starts from the current state, so that it does not matter who completed the others.
type Controller struct {
	Config
}

// New returns a Controller.
func New(c Config) *Controller { return &Controller{c} }

func needsExpansion(claim *corev1.PersistentVolumeClaim) bool {
	request, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	return claim.Status.Phase == corev1.ClaimBound && claim.DeletionTimestamp == nil && request.Cmp(has) > 0
}

// Run expands the volumes of the informer's claims until ctx is done. Then it waits for
// the expansions that have begun.
func (c *Controller) Run(ctx context.Context, claims cache.SharedInformer, workers int) error {
	queue := workqueue.NewNamedRateLimitingQueue(c.Limiter, "expansions")
	defer queue.ShutDown()
	enqueue := func(obj any) {
		if claim, ok := obj.(*corev1.PersistentVolumeClaim); ok && needsExpansion(claim) {
			queue.Add(types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name})
		}
	}
	_, err := claims.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, obj any) { enqueue(obj) }})
	if err != nil {
		return err
	}
	var working sync.WaitGroup
	for range workers {
		working.Add(1)
		go func() {
			defer working.Done()
			for c.next(context.WithoutCancel(ctx), queue) {
			}
		}()
	}
	<-ctx.Done()
	queue.ShutDown()
	working.Wait()
	return nil
}

func (c *Controller) next(ctx context.Context, queue workqueue.RateLimitingInterface) bool {
	item, shutdown := queue.Get()
	if shutdown {
		return false
	}
	defer queue.Done(item)
	key, ok := item.(types.NamespacedName)
	if !ok {
		return true
	}
	end, ok := c.Begin()
	if !ok {
		return true
	}
	defer end()
	if err := c.Expand(ctx, key); err != nil {
		klog.FromContext(ctx).V(2).Info("Failed to expand volume, will retry", "claim", klog.KRef(key.Namespace, key.Name), "err", err)
		queue.AddRateLimited(key)
		return true
	}
	queue.Forget(key)
	return true
}
