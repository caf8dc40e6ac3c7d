package provisioner

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
)

// Delete implements controller.Provisioner. It moves the image of the volume to the
// trash. The annotations of the volume suffice; the class may be gone. The steps:
//  1. Check that no other volume has the image, and that no node uses it.
//  2. Confirm with the API server that the volume is to be deleted: the cache may be stale.
//  3. Open the image and check that it belongs to the volume and is free.
//  4. The library deletes the volume only if it has not changed since step 2. If it has, the
//     image is still in the trash, and is restored when the volume needs it.
func (p *Provisioner) Delete(ctx context.Context, volume *corev1.PersistentVolume) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	if rbd := volume.Spec.RBD; rbd == nil || rbd.RBDPool == "" || rbd.RBDImage == "" || len(rbd.CephMonitors) == 0 {
		return preflightf("the image of the volume is unknown, because the volume has no rbd source with monitors, pool and image: delete the image (`rbd rm`), remove the volume's finalizers (`kubectl patch`) and delete the volume")
	}
	if err := p.Clusters.CheckIdentity(volume); err != nil {
		return err
	}
	if err := p.checkInUse(volume); err != nil {
		return err
	}
	target, err := p.Clusters.ForVolume(ctx, volume)
	if err != nil {
		return err
	}
	keep, err := p.confirmDeletion(ctx, volume)
	if err != nil {
		if errors.As(err, new(*controller.IgnoredError)) {
			// An earlier call may have moved the image to the trash.
			p.Trash.Clean(ctx, target.Cluster, target.Pool)
		}
		return err
	}
	// Before the move: a move that times out may be completed later.
	p.Trash.CleanAfter(volume.Name, target.Cluster, target.Pool)
	if err := p.Images.Delete(ctx, target.Cluster, target.ImageRef, target.Precondition, keep); err != nil {
		known := target.errorContext()
		known.deleting = true
		return withHint(err, known)
	}
	klog.FromContext(ctx).V(2).Info("Deleted image", "volume", volume.Name, "image", target.ImageRef, "keep", keep)
	return nil
}

// confirmDeletion checks with the API server that the volume is still to be deleted. It
// returns for how long its image is to be kept in the trash. If the volume has changed,
// the error is an IgnoredError: the library sends no event, and the cache will be updated.
func (p *Provisioner) confirmDeletion(ctx context.Context, cached *corev1.PersistentVolume) (time.Duration, error) {
	now, err := p.Live.PersistentVolumes().Get(ctx, cached.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return 0, &controller.IgnoredError{Reason: "the volume does not exist any more"}
	case err != nil:
		return 0, preflightf("read volume %s: %w", cached.Name, err)
	case now.UID != cached.UID:
		return 0, &controller.IgnoredError{Reason: "the volume was replaced by another of its name"}
	case !pvindex.IsDeletable(now):
		return 0, &controller.IgnoredError{Reason: fmt.Sprintf("the volume is %s, with reclaim policy %s", now.Status.Phase, now.Spec.PersistentVolumeReclaimPolicy)}
	case claimUIDOf(now) != claimUIDOf(cached):
		return 0, &controller.IgnoredError{Reason: "the volume is bound to another claim"}
	case claimUIDOf(now) == "":
		return 0, &controller.IgnoredError{Reason: "the volume was bound to no claim"}
	case now.Annotations[annProvisionedBy] != cached.Annotations[annProvisionedBy]:
		return 0, &controller.IgnoredError{Reason: "the volume was reassigned to another provisioner"}
	}
	claimed, err := p.isClaimed(ctx, now)
	switch {
	case err != nil:
		return 0, err
	case claimed:
		return 0, &controller.IgnoredError{Reason: "the claim of the volume exists"}
	}
	p.Confirmed(now)
	return retentionOf(now)
}

// isClaimed reports whether the claim of the volume still exists and names the volume. In
// this case the phase of the volume is stale: its claimRef was changed. Only a claim that
// is in the cache is read from the API server: the cache may keep a deleted claim for a moment.
func (p *Provisioner) isClaimed(ctx context.Context, volume *corev1.PersistentVolume) (bool, error) {
	ref := volume.Spec.ClaimRef
	names := func(claim *corev1.PersistentVolumeClaim, err error) bool {
		return err == nil && claim.UID == ref.UID && claim.Spec.VolumeName == volume.Name
	}
	if !names(p.Claims.PersistentVolumeClaims(ref.Namespace).Get(ref.Name)) {
		return false, nil
	}
	claim, err := p.Live.PersistentVolumeClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, preflightf("read claim %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	return names(claim, err), nil
}

func claimUIDOf(volume *corev1.PersistentVolume) types.UID {
	if volume.Spec.ClaimRef == nil {
		return ""
	}
	return volume.Spec.ClaimRef.UID
}

// retentionOf returns how long the image of the volume is to be kept in the trash.
func retentionOf(volume *corev1.PersistentVolume) (time.Duration, error) {
	text, ok := volume.Annotations[annTrashRetention]
	if !ok {
		return 0, nil
	}
	keep, err := storageclass.ParseRetention(text)
	if err != nil {
		return 0, preflightf("annotation %s of the volume: %q: %w: correct or remove it", annTrashRetention, storageclass.Truncate(text), err)
	}
	return keep, nil
}
