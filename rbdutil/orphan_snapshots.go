package rbdutil

import (
	"context"
	"errors"
)

// RemoveOrphanSnapshots removes our snapshots of an image whose clones are not needed,
// unless they have clones. It also removes partial clones in the same pool. It calls reserve
// with the name of each such clone. If the clone may still be needed, ok is false; otherwise
// the name is reserved until release is called.
func (i *Images) RemoveOrphanSnapshots(ctx context.Context, c Cluster, ref ImageRef, owner Owner, reserve func(clone string) (release func(), ok bool)) error {
	img, err := i.store.Get(ctx, c, ref)
	if errors.Is(err, ErrImageNotFound) {
		return nil
	}
	if err != nil || img.RecordError != nil || !img.Owner().SameMaker(owner) {
		return err
	}
	var errs []error
	for _, snapshot := range ourSnapshots(img) {
		if err := i.removeOrphanSnapshot(ctx, c, img, snapshot, owner, reserve); err != nil && !errors.Is(err, ErrHasClones) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (i *Images) removeOrphanSnapshot(ctx context.Context, c Cluster, source Image, snapshot string, owner Owner, reserve func(string) (func(), bool)) error {
	clone, _ := CloneOf(snapshot)
	release, ok := reserve(clone)
	if !ok {
		return nil
	}
	defer release()
	if err := i.removeParentlessClone(ctx, c, ImageRef{source.Pool, clone}, source, owner); err != nil {
		return err
	}
	return i.store.RemoveSnapshot(ctx, c, SnapshotRef{source.Pool, source.ID, snapshot})
}

// removeParentlessClone moves a partial clone without a parent to the trash: see
// isParentlessClone.
func (i *Images) removeParentlessClone(ctx context.Context, c Cluster, ref ImageRef, source Image, owner Owner) error {
	img, err := i.store.Get(ctx, c, ref)
	if errors.Is(err, ErrImageNotFound) {
		return nil
	}
	if err != nil || !isParentlessClone(img, source) {
		return err
	}
	// If it is kept, so is the snapshot: only that identifies this image.
	if err := CheckFree(img); err != nil {
		return err
	}
	if err := i.checkNotWritten(ctx, c, img); err != nil {
		return err
	}
	return i.moveUnusedToTrash(ctx, c, img, owner)
}
