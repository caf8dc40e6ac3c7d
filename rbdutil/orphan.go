package rbdutil

import (
	"context"
	"errors"
	"fmt"
)

// RemoveOrphan moves an image to the trash that was created for a claim and never became a
// volume. It must be an image, or a partial one, of exactly this claim, provisioner and
// cluster. The caller found neither claim nor volume, but may be wrong. So the image must
// never have been written to, and must not be a complete clone, which has the data of its
// source. It does not change any other image: ErrForeignImage, ErrNotEmpty, or an error of
// CheckFree. It succeeds if the image does not exist.
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

// checkOrphanOwner returns an error unless the image belongs to the owner's claim, or is a
// partial image: a clone, if the snapshot that it was made from has its name, or an image
// without data.
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

// checkNotWritten returns ErrNotEmpty if the image was ever written to. The data of a
// clone's parent does not count.
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
