package cleanup

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// clean removes or restores one image, or does nothing. An image that is known to be
// foreign is not read again, unless a volume needs it.
func (t *TrashCleaner) clean(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage, foreign bool) (removed bool, err error) {
	ref := rbdutil.ImageRef{Pool: pool, Name: img.Name}
	volumes, err := pvindex.Volumes(t.Index, ref)
	if err != nil {
		return false, err
	}
	needs := firstNeeding(volumes)
	if needs == nil && (foreign || len(volumes) > 0 || time.Now().Before(img.KeepUntil)) {
		return false, nil // wait until the volume is gone and the retention has passed
	}
	record, err := t.Images.GetTrashed(ctx, c, pool, img)
	if errors.Is(err, rbdutil.ErrImageNotFound) && (needs == nil || t.hasName(ctx, c, ref, img)) {
		return t.remove(ctx, c, pool, img) // only remains without data
	}
	if err != nil {
		t.reportUnknownOwner(needs, ref, img, err)
		return false, err
	}
	needs, wait, err := t.decide(ctx, ref, img, record, needs)
	switch {
	case err != nil || wait:
		return false, err
	case needs == nil:
		return t.remove(ctx, c, pool, img)
	}
	return t.restore(ctx, c, ref, img, record, needs)
}

// reportUnknownOwner sends an event if the image of a volume is in the trash, but has no
// record that names its owner.
func (t *TrashCleaner) reportUnknownOwner(needs *corev1.PersistentVolume, ref rbdutil.ImageRef, img rbdutil.TrashedImage, err error) {
	if needs != nil && errors.Is(err, rbdutil.ErrForeignImage) {
		t.Events.Eventf(needs, corev1.EventTypeWarning, reasonInTrash,
			"image %s of this volume is in the trash (id %s), and has no record of its owner: if it is the image of this volume, restore it (`rbd trash restore %s/%s`)", ref, img.ID, ref.Pool, img.ID)
	}
}

// restore moves an image that a volume needs out of the trash. It removes an image that
// was never used if another image has its name: then the volume needs that one.
func (t *TrashCleaner) restore(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, img rbdutil.TrashedImage, record rbdutil.Record, needs *corev1.PersistentVolume) (removed bool, err error) {
	neverUsed := record.DeletedBy(t.Maker, img) && record.Deleted.Unused
	switch {
	case neverUsed && t.hasName(ctx, c, ref, img):
		return t.remove(ctx, c, ref.Pool, img)
	case neverUsed && t.hasTwin(ctx, c, ref.Pool, img):
		return false, nil // the volume may need the other one
	}
	err = t.Images.Restore(ctx, c, ref.Pool, img)
	if neverUsed && errors.Is(err, rbdutil.ErrImageExists) {
		return t.remove(ctx, c, ref.Pool, img)
	}
	return false, t.reportRestored(ctx, ref, img, needs, err)
}

// hasName reports whether another image has the name now.
func (t *TrashCleaner) hasName(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, img rbdutil.TrashedImage) bool {
	other, err := t.Images.Get(ctx, c, ref)
	return err == nil && other.ID != img.ID
}

// hasTwin reports whether another image in the trash had the same name, or may have had.
func (t *TrashCleaner) hasTwin(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage) bool {
	trashed, err := t.Images.ListTrash(ctx, c, pool)
	return err != nil || slices.ContainsFunc(trashed, func(other rbdutil.TrashedImage) bool {
		return other.Name == img.Name && other.ID != img.ID
	})
}

// remove fails with ErrForeignImage if the record does not cover the time of the move.
func (t *TrashCleaner) remove(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage) (removed bool, err error) {
	err = t.Images.RemoveFromTrash(ctx, c, pool, img, t.Maker)
	return err == nil, err
}

// decide returns the volume that needs the image, if there is one. The caller may know it
// already. If wait is true, the volume still exists and is to be deleted. If needs is nil
// and wait is false, the image may be removed.
func (t *TrashCleaner) decide(ctx context.Context, ref rbdutil.ImageRef, img rbdutil.TrashedImage, record rbdutil.Record, known *corev1.PersistentVolume) (needs *corev1.PersistentVolume, wait bool, err error) {
	switch {
	case known != nil && record.SameMaker(t.Maker):
		return known, false, nil // also if another client moved it to the trash
	case !record.DeletionBegunBy(t.Maker):
		return nil, false, rbdutil.ErrForeignImage
	case known != nil:
		return known, false, nil
	}
	if !record.DeletedBy(t.Maker, img) {
		klog.FromContext(ctx).Info("Image came into the trash long after this provisioner began to move it there, not removing", "image", ref, "id", img.ID)
	}
	if volume := t.cancelledDeletion(record.VolumeName); volume != nil {
		return volume, false, nil
	}
	needs, gone, err := t.findVolume(ctx, ref, record.VolumeName)
	return needs, needs == nil && !gone, err
}

// firstNeeding returns the first volume that needs its image, or nil.
func firstNeeding(volumes []*corev1.PersistentVolume) *corev1.PersistentVolume {
	for _, volume := range volumes {
		if !pvindex.IsDeletable(volume) {
			return volume
		}
	}
	return nil
}

// findVolume reads the volume of the image from the API server, as the cache may be
// stale. It returns the volume if it needs the image, and whether it is gone.
func (t *TrashCleaner) findVolume(ctx context.Context, ref rbdutil.ImageRef, name string) (needs *corev1.PersistentVolume, gone bool, err error) {
	if name == "" {
		return nil, true, nil
	}
	volume, err := t.Live.PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	for _, image := range pvindex.Images(volume) {
		if image == ref {
			return firstNeeding([]*corev1.PersistentVolume{volume}), false, nil
		}
	}
	return nil, true, nil // the volume of that name has another image
}

// reportRestored reports the result of restoring the image of a volume.
func (t *TrashCleaner) reportRestored(ctx context.Context, ref rbdutil.ImageRef, img rbdutil.TrashedImage, volume *corev1.PersistentVolume, err error) error {
	switch {
	case errors.Is(err, rbdutil.ErrImageExists):
		t.Events.Eventf(volume, corev1.EventTypeWarning, reasonInTrash,
			"image %s of this volume is in the trash (id %s), and another image has its name: compare both, rename the other (`rbd mv`), and the image will be restored automatically", ref, img.ID)
		return nil
	case err != nil:
		return err
	}
	t.mu.Lock()
	delete(t.cancelled, volume.Name)
	t.mu.Unlock()
	klog.FromContext(ctx).Info("Restored image from the trash", "image", ref, "volume", volume.Name)
	t.Events.Eventf(volume, corev1.EventTypeWarning, reasonRestored,
		"image %s was in the trash and has been restored: volume %s needs it", ref, volume.Name)
	return nil
}
