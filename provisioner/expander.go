package provisioner

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Grower makes images larger.
type Grower interface {
	Expand(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, size uint64, precondition rbdutil.Precondition) (rbdutil.Image, error)
}

// ExpanderConfig is what an Expander needs beside the Provisioner.
type ExpanderConfig struct {
	Images Grower
	Client corev1client.CoreV1Interface
	// Begin is asked before each expansion, and its end called after; false when no more
	// are to begin.
	Begin func() (end func(), ok bool)
	// Limiter says when to try again what has failed.
	Limiter workqueue.RateLimiter
}

// Expander grows the volumes of claims that ask for more than they have: first the
// image, then what the PersistentVolume says of it; the file system is for the kubelet.
// The steps and their order are external-resizer's. Kubernetes' own controller manager
// tries the same on every rbd volume, and fails for want of the rbd command; it stands
// aside as soon as the PersistentVolume says that it is large enough. Every step starts
// from what there is, so that it does not matter who has done the one before, or how far
// somebody came.
type Expander struct {
	ExpanderConfig
	p *Provisioner
}

// NewExpander returns an Expander for the volumes of p.
func NewExpander(p *Provisioner, c ExpanderConfig) *Expander {
	return &Expander{ExpanderConfig: c, p: p}
}

func asksForMore(claim *corev1.PersistentVolumeClaim) bool {
	request, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	return claim.Status.Phase == corev1.ClaimBound && claim.DeletionTimestamp == nil && request.Cmp(has) > 0
}

// Run expands what the informer tells of until ctx is done, and returns when what it has
// begun has come to an end.
func (e *Expander) Run(ctx context.Context, claims cache.SharedInformer, workers int) error {
	queue := workqueue.NewNamedRateLimitingQueue(e.Limiter, "expansions")
	defer queue.ShutDown()
	hear := func(obj any) {
		if claim, ok := obj.(*corev1.PersistentVolumeClaim); ok && asksForMore(claim) {
			queue.Add(types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name})
		}
	}
	_, err := claims.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: hear, UpdateFunc: func(_, obj any) { hear(obj) }})
	if err != nil {
		return err
	}
	var working sync.WaitGroup
	for range workers {
		working.Add(1)
		go func() {
			defer working.Done()
			for e.next(context.WithoutCancel(ctx), queue) {
			}
		}()
	}
	<-ctx.Done()
	queue.ShutDown()
	working.Wait()
	return nil
}

func (e *Expander) next(ctx context.Context, queue workqueue.RateLimitingInterface) bool {
	item, shutdown := queue.Get()
	if shutdown {
		return false
	}
	defer queue.Done(item)
	key, ok := item.(types.NamespacedName)
	if !ok {
		return true
	}
	end, ok := e.Begin()
	if !ok {
		return true
	}
	defer end()
	if err := e.Expand(ctx, key); err != nil {
		klog.FromContext(ctx).V(2).Info("Volume is not expanded yet", "claim", klog.KRef(key.Namespace, key.Name), "err", err)
		queue.AddRateLimited(key)
		return true
	}
	queue.Forget(key)
	return true
}

// Expand takes the claim's volume all the way to where the kubelet goes on, or says on
// the claim why not. An error means that it is to be tried again.
func (e *Expander) Expand(ctx context.Context, key types.NamespacedName) error {
	ctx, cancel := context.WithTimeout(ctx, e.p.timeout)
	defer cancel()
	claim, err := e.p.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || !asksForMore(claim) {
		return err
	}
	volume, err := e.p.volumes.Get(claim.Spec.VolumeName)
	if err != nil {
		return err
	}
	if !e.ours(claim, volume) {
		return nil
	}
	err = e.expand(ctx, claim, volume)
	if err != nil && !apierrors.IsConflict(err) {
		e.p.events.Event(claim, corev1.EventTypeWarning, reasonResizeFailed, err.Error())
	}
	return err
}

func (e *Expander) ours(claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) bool {
	return volume.Annotations[annProvisionedBy] == e.p.name && volume.Spec.RBD != nil && volume.DeletionTimestamp == nil &&
		volume.Spec.ClaimRef != nil && volume.Spec.ClaimRef.UID == claim.UID
}

func (e *Expander) expand(ctx context.Context, claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) error {
	request, capacity := claim.Spec.Resources.Requests[corev1.ResourceStorage], volume.Spec.Capacity[corev1.ResourceStorage]
	if capacity.Cmp(request) < 0 {
		// The cache may not have heard yet of what was done a moment ago.
		now, err := e.Client.PersistentVolumes().Get(ctx, volume.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		volume, capacity = now, now.Spec.Capacity[corev1.ResourceStorage]
	}
	if capacity.Cmp(request) >= 0 {
		return e.handOver(ctx, claim, capacity)
	}
	if readOnly(claim) && modeOf(claim) == corev1.PersistentVolumeFilesystem {
		e.p.events.Event(claim, corev1.EventTypeWarning, reasonResizeFailed,
			"a volume with access mode ReadOnlyMany stays as it is: nobody could grow its file system, and no node could mount it then")
		return nil
	}
	claim, err := e.markResizing(ctx, claim, volume)
	if err != nil {
		return err
	}
	img, err := e.grow(ctx, volume, rbdutil.RoundUp(bytesOf(request)))
	if err != nil {
		return err
	}
	capacity = *resource.NewQuantity(int64(img.Size), resource.BinarySI)
	if err := e.setCapacity(ctx, volume, capacity); err != nil {
		return err
	}
	klog.FromContext(ctx).V(2).Info("Image has grown", "claim", klog.KObj(claim), "image", img.ImageRef, "bytes", img.Size)
	// Whoever says so in the claim's conditions: the controller manager may be faster now.
	if modeOf(claim) == corev1.PersistentVolumeBlock {
		e.p.events.Eventf(claim, corev1.EventTypeNormal, reasonResizeSuccess, "the image of volume %s has %s", volume.Name, capacity.String())
	} else {
		e.p.events.Eventf(claim, corev1.EventTypeNormal, reasonFileSystemResize, "the image of volume %s has %s: %s", volume.Name, capacity.String(), kubeletsTurn)
	}
	return e.handOver(ctx, claim, capacity)
}

// grow makes the volume's image at least so large.
func (e *Expander) grow(ctx context.Context, volume *corev1.PersistentVolume, size uint64) (rbdutil.Image, error) {
	source := volume.Spec.RBD
	if len(source.CephMonitors) == 0 || source.RBDImage == "" {
		return rbdutil.Image{}, refusef("volume %s names no monitors or no image", volume.Name)
	}
	if err := e.p.checkIdentity(volume); err != nil {
		return rbdutil.Image{}, err
	}
	cluster, admin, err := e.p.clusterOf(ctx, volume)
	if err != nil {
		return rbdutil.Image{}, err
	}
	ref := rbdutil.ImageRef{Pool: source.RBDPool, Name: source.RBDImage}
	img, err := e.Images.Expand(ctx, cluster, ref, size, e.p.preconditionFor(volume))
	if errors.Is(err, rbdutil.ErrPoolNotFound) {
		return rbdutil.Image{}, fmt.Errorf("%w: the volume cannot grow before pool %s is back", err, ref.Pool)
	}
	return img, explain(err, circumstances{cluster: cluster, pool: ref.Pool, image: ref, adminSecret: admin.secret})
}
