package rbdutil

import (
	"context"
	"errors"
)

// RemoveOrphanSnapshots removes the snapshots of an image that were taken for clones which are of
// no use to anybody, as far as they have no clones. What was begun of such a clone in the
// same pool goes with it. Reserve is asked for each such clone, by image name: it is false
// if the clone may be of use, and reserves the name until release is called otherwise.
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

// removeNameless removes what there is of a clone of the source that has no parent. Only the
// snapshot that bears its name, or the record of the source, shows whose it is.
func (i *Images) removeParentlessClone(ctx context.Context, c Cluster, ref ImageRef, source Image, owner Owner) error {
	img, err := i.store.Get(ctx, c, ref)
	if errors.Is(err, ErrImageNotFound) {
		return nil
	}
	if err != nil || !isParentlessClone(img, source) || CheckFree(img) != nil {
		return err
	}
	if err := i.checkNotWritten(ctx, c, img); err != nil {
		if errors.Is(err, ErrNotEmpty) {
			return nil
		}
		return err
	}
	return i.moveUnusedToTrash(ctx, c, img, owner)
}
