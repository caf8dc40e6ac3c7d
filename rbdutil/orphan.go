package rbdutil

import (
	"context"
	"errors"
	"fmt"
)

// RemoveOrphan moves an image to the trash that was made for a claim and never became a
// volume. It must be an image of that very claim, provisioner and cluster, or the
// beginning of one. As the caller has found no trace of claim or volume and may be wrong,
// it must never have been written to, and it must not be a complete clone, which shows
// somebody's data. Any other image is left untouched: ErrForeignImage, ErrNotEmpty, or an
// error of CheckFree. That it is gone already is success.
func (i *Images) RemoveOrphan(ctx context.Context, c Cluster, ref ImageRef, owner Owner) error {
	img, err := i.store.Get(ctx, c, ref)
	if errors.Is(err, ErrImageNotFound) {
		return i.deletePartial(ctx, c, ref)
	}
	if err != nil {
		return err
	}
	if err := i.checkOrphan(ctx, c, img, owner); err != nil {
		return err
	}
	return i.moveUnusedToTrash(ctx, c, img, owner)
}

func (i *Images) checkOrphan(ctx context.Context, c Cluster, img Image, owner Owner) error {
	if err := checkOrphanOwner(img, owner); err != nil {
		return err
	}
	switch {
	case len(img.Watchers) > 0:
		return inUseError(img)
	case len(img.Snapshots) > 0:
		return hasSnapshotsError(img)
	case img.hasRecordFor(owner) && img.isCompleteClone():
		return fmt.Errorf("%w: %s is a complete clone", ErrNotEmpty, img.ImageRef)
	}
	return i.checkNotWritten(ctx, c, img)
}

// checkOrphanOwner returns an error unless the image is of the owner's claim, or the
// beginning of one: of a clone, as the snapshot shows that bears its name, or of an image
// that holds nothing.
func checkOrphanOwner(img Image, owner Owner) error {
	switch {
	case img.hasRecordFor(owner):
		return nil
	case isPartialClone(img) && img.Parent.Name == snapshotFor(img.ImageRef):
		return nil
	case img.RecordError != nil:
		return fmt.Errorf("%w: %s: %w", ErrForeignImage, img.ImageRef, img.RecordError)
	case !img.Owner().Unknown():
		has := img.Owner()
		return fmt.Errorf("%w: %s was made for %s by %q in cluster %q", ErrForeignImage, img.ImageRef, has, has.Provisioner, has.ClusterID)
	case img.Size != 0 || img.Parent != nil:
		return fmt.Errorf("%w: the metadata of %s names no owner", ErrForeignImage, img.ImageRef)
	}
	return nil
}

// checkNotWritten returns ErrNotEmpty if anything was ever written to the image. What a
// clone has of its parent was not written to it.
func (i *Images) checkNotWritten(ctx context.Context, c Cluster, img Image) error {
	if img.Size == 0 {
		return nil
	}
	written, err := i.store.HasChanges(ctx, c, img.ImageRef, "")
	if err == nil && written {
		err = fmt.Errorf("%w: %s was written to", ErrNotEmpty, img.ImageRef)
	}
	return err
}
