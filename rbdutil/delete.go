package rbdutil

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Delete moves the image to the pool's trash, and keeps it there at least for the given
// time. It succeeds if the image does not exist, but not if the pool does not. It does not
// change an image that is in use, or that the precondition excludes. The error names the
// holder: ErrForeignImage, or one of those of CheckFree.
func (i *Images) Delete(ctx context.Context, c Cluster, ref ImageRef, precondition Precondition, keep time.Duration) error {
	img, err := i.store.Get(ctx, c, ref)
	if errors.Is(err, ErrImageNotFound) {
		return i.deletePartial(ctx, c, ref)
	}
	if err != nil {
		return err
	}
	if err := checkOwner(img, precondition); err != nil {
		return err
	}
	if len(img.Watchers) > 0 {
		return inUseError(img) // the move would open the image for writing
	}
	return i.moveToTrash(ctx, c, img, precondition.Owner, keep, false)
}

// deletePartial deletes an image that was not found by its name.
func (i *Images) deletePartial(ctx context.Context, c Cluster, ref ImageRef) error {
	trashed, err := i.findInTrash(ctx, c, ref)
	if err != nil {
		return err
	}
	for _, img := range trashed {
		if img.Migrating {
			return fmt.Errorf("%w: %s", ErrMigrating, ref)
		}
	}
	return i.removePartial(ctx, c, ref)
}

// moveUnusedToTrash is moveToTrash for an image that never became a volume: see Deletion.
func (i *Images) moveUnusedToTrash(ctx context.Context, c Cluster, seen Image, maker Owner) error {
	return i.moveToTrash(ctx, c, seen, maker, 0, true)
}

// moveToTrash moves the image that was seen to the trash. The caller has checked the owner.
// The Store checks again that the open image is the one seen.
func (i *Images) moveToTrash(ctx context.Context, c Cluster, seen Image, maker Owner, keep time.Duration, unused bool) error {
	record := seen.Record
	if record.Unknown() {
		record.Owner = maker
	}
	record.ImageID = seen.ID
	now := time.Now()
	record = record.WithDeletion(maker, Deletion{Time: now, KeepUntil: now.Add(keep), Unused: unused})
	err := i.store.MoveToTrash(ctx, c, seen, record, keep)
	if !errors.Is(err, ErrImageNotFound) {
		return err
	}
	// An earlier call was completed since, or the pool is full and has no trash yet.
	if _, err := i.store.Get(ctx, c, seen.ImageRef); err == nil {
		return fmt.Errorf("%w: %s still exists, Ceph did not move it to the trash", ErrNotRemoved, seen.ImageRef)
	} else if !errors.Is(err, ErrImageNotFound) {
		return err
	}
	return nil
}

// removePartial removes the name that an interrupted creation or removal left. An
// interrupted move to the trash also leaves a name, but there the image still has its data:
// RemoveFromTrash completes that move, or the client that began it.
func (i *Images) removePartial(ctx context.Context, c Cluster, ref ImageRef) error {
	if trashed, err := i.findInTrash(ctx, c, ref); err != nil || len(trashed) > 0 {
		return err
	}
	switch err := i.store.RemovePartial(ctx, c, ref); {
	case errors.Is(err, ErrImageNotFound):
		return nil
	case errors.Is(err, ErrImageExists):
		return fmt.Errorf("%w: %s is complete, but was not found by its name", ErrNotRemoved, ref)
	default:
		return err
	}
}

// findInTrash returns the images in the trash that had the name.
func (i *Images) findInTrash(ctx context.Context, c Cluster, ref ImageRef) ([]TrashedImage, error) {
	trashed, err := i.store.ListTrash(ctx, c, ref.Pool)
	var found []TrashedImage
	for _, img := range trashed {
		if img.Name == ref.Name {
			found = append(found, img)
		}
	}
	return found, err
}
