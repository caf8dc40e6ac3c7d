package expansion

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Reasons of events on the claim. They are those of external-resizer.
const (
	reasonResizing = "Resizing"
	reasonFailed   = "VolumeResizeFailed"
	// reasonFileSystemResize: the image is expanded; the kubelet expands the file system.
	reasonFileSystemResize = "FileSystemResizeRequired"
	// reasonSuccess: the image of a block volume is expanded.
	reasonSuccess = "VolumeResizeSuccessful"
)

// Expand expands the claim's volume up to the part of the kubelet. An event on the claim
// has the reason of a failure. If Expand returns an error, it is to be retried.
func (c *Controller) Expand(ctx context.Context, key types.NamespacedName) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	claim, err := c.Claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || !needsExpansion(claim) {
		return err
	}
	volume, err := c.Volumes.Get(claim.Spec.VolumeName)
	if err != nil {
		return err
	}
	if !c.isManaged(claim, volume) {
		return nil
	}
	err = c.expand(ctx, claim, volume)
	if err != nil && !apierrors.IsConflict(err) {
		c.Events.Event(claim, corev1.EventTypeWarning, reasonFailed, err.Error())
	}
	return err
}

func (c *Controller) isManaged(claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) bool {
	return c.Clusters.IsManaged(volume) && volume.DeletionTimestamp == nil &&
		volume.Spec.ClaimRef != nil && volume.Spec.ClaimRef.UID == claim.UID
}

func (c *Controller) expand(ctx context.Context, claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) error {
	request, capacity := claim.Spec.Resources.Requests[corev1.ResourceStorage], volume.Spec.Capacity[corev1.ResourceStorage]
	if capacity.Cmp(request) < 0 {
		// The cache may be stale just after an expansion.
		now, err := c.Client.PersistentVolumes().Get(ctx, volume.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		volume, capacity = now, now.Spec.Capacity[corev1.ResourceStorage]
	}
	if capacity.Cmp(request) >= 0 {
		return c.finishControllerExpansion(ctx, claim, capacity)
	}
	if provisioner.IsReadOnly(claim) && !isBlock(claim) {
		c.Events.Event(claim, corev1.EventTypeWarning, reasonFailed,
			"a volume with access mode ReadOnlyMany cannot be expanded: nodes cannot expand its file system, and could not mount it afterwards")
		return nil
	}
	claim, err := c.markResizing(ctx, claim, volume)
	if err != nil {
		return err
	}
	img, err := c.expandImage(ctx, volume, rbdutil.RoundUp(storageclass.Bytes(request)))
	if err != nil {
		return err
	}
	capacity = *resource.NewQuantity(int64(img.Size), resource.BinarySI)
	if err := c.setCapacity(ctx, volume, capacity); err != nil {
		return err
	}
	klog.FromContext(ctx).V(2).Info("Expanded image", "claim", klog.KObj(claim), "image", img.ImageRef, "bytes", img.Size)
	// Before the conditions are set: the expand controller of Kubernetes may set them first.
	if isBlock(claim) {
		c.Events.Eventf(claim, corev1.EventTypeNormal, reasonSuccess, "the image of volume %s has %s", volume.Name, capacity.String())
	} else {
		c.Events.Eventf(claim, corev1.EventTypeNormal, reasonFileSystemResize, "the image of volume %s has %s: %s", volume.Name, capacity.String(), fileSystemPending)
	}
	return c.finishControllerExpansion(ctx, claim, capacity)
}

// expandImage gives the image of the volume at least the size.
func (c *Controller) expandImage(ctx context.Context, volume *corev1.PersistentVolume, size uint64) (rbdutil.Image, error) {
	if rbd := volume.Spec.RBD; len(rbd.CephMonitors) == 0 || rbd.RBDImage == "" {
		return rbdutil.Image{}, fmt.Errorf("volume %s lacks monitors or image in its rbd source", volume.Name)
	}
	if err := c.Clusters.CheckIdentity(volume); err != nil {
		return rbdutil.Image{}, err
	}
	target, err := c.Clusters.ForVolume(ctx, volume)
	if err != nil {
		return rbdutil.Image{}, err
	}
	img, err := c.Images.Expand(ctx, target.Cluster, target.ImageRef, size, target.Precondition)
	if errors.Is(err, rbdutil.ErrPoolNotFound) {
		return rbdutil.Image{}, fmt.Errorf("%w: the volume cannot be expanded while pool %s does not exist", err, target.Pool)
	}
	return img, target.WithHint(err)
}

func isBlock(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock
}
