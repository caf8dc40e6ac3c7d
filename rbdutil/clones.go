package rbdutil

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// ensureClone is Ensure for a clone. It creates the clone in these steps:
//  1. Create a snapshot of the source, named after the clone. Until step 3 it
//     shows that the clone is being created.
//  2. Create the clone. Until step 3 it has no record, or a copy of its source's.
//  3. Write its record, with all data that the next steps need.
//  4. Set its size.
//  5. Flatten it, if the record says so.
//
// After step 3 the clone does not need the source claim: ResumeClone does the other steps.
func (i *Images) ensureClone(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	if i.flattener.isRunning(flattenKey(c, spec.ImageRef)) {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, errFlattening)
	}
	img, err := i.store.Get(ctx, c, spec.ImageRef)
	switch {
	case errors.Is(err, ErrImageNotFound):
		img, err = i.createClone(ctx, c, spec)
	case err == nil && (!img.hasRecordFor(spec.Owner) || isPartialClone(img)):
		img, err = i.recreateClone(ctx, c, spec, img)
	case err == nil:
		if err = checkReusableClone(img, spec); err != nil && !img.isCompleteClone() {
			img, err = i.replaceClone(ctx, c, spec, img)
		}
	}
	if err != nil {
		return Image{}, err
	}
	return i.finishClone(ctx, c, img)
}

// ResumeClone completes a clone that was begun for the owner's claim, and returns it. The
// source claim need not exist: the record of the clone has all data. ErrImageNotFound: there
// is no clone, or it has no record yet.
func (i *Images) ResumeClone(ctx context.Context, c Cluster, ref ImageRef, owner Owner) (Image, error) {
	img, err := i.store.Get(ctx, c, ref)
	if err != nil {
		return Image{}, err
	}
	if !img.hasRecordFor(owner) || img.Record.Source == nil {
		return Image{}, fmt.Errorf("%w: %s is not a clone for %s", ErrImageNotFound, ref, owner)
	}
	return i.finishClone(ctx, c, img)
}

// hasRecordFor reports whether the record names the owner's claim.
func (i Image) hasRecordFor(owner Owner) bool {
	return i.RecordError == nil && i.Owner().SameClaim(owner)
}

// isCompleteClone reports whether the image is a complete clone, which a claim may have
// received.
func (i Image) isCompleteClone() bool {
	r := i.Record
	return r.Source != nil && i.Size >= r.Size && (!r.Flatten || i.Parent == nil)
}

// createClone creates a clone, and sets its record and size.
func (i *Images) createClone(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	source, err := i.getSource(ctx, c, spec)
	if err != nil {
		return Image{}, err
	}
	snapshot, err := i.takeSnapshot(ctx, c, spec, source)
	if err != nil {
		return Image{}, err
	}
	err = i.store.Clone(ctx, c, source.ImageRef, snapshot, spec.ImageRef, spec.Layout)
	if errors.Is(err, ErrImageExists) {
		// There is only the name: see createOrReuse.
		if err = i.removePartial(ctx, c, spec.ImageRef); err == nil {
			err = i.store.Clone(ctx, c, source.ImageRef, snapshot, spec.ImageRef, spec.Layout)
		}
	}
	var img Image
	if err == nil {
		img, err = i.store.Get(ctx, c, spec.ImageRef)
	}
	if err == nil {
		err = i.recordClone(ctx, c, spec, source, &img)
	}
	if err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return img, nil
}

// recordClone sets the record and size of a new clone.
func (i *Images) recordClone(ctx context.Context, c Cluster, spec ImageSpec, source Image, img *Image) error {
	if img.Parent == nil {
		return fmt.Errorf("%w: %s has no parent", ErrChanged, img.ImageRef)
	}
	flatten, err := i.mustFlatten(ctx, c, spec, *img, source)
	if err != nil {
		return err
	}
	record := Record{
		Owner: spec.Owner, ImageID: img.ID, Size: spec.Size, Flatten: flatten,
		// Until the update, the clone has the size of the snapshot.
		Source: &RecordedSource{SourceVolume: spec.Source.Volume, SnapshotRef: *img.Parent, Size: img.Size},
	}
	if err := i.store.Update(ctx, c, *img, &record, spec.Size); err != nil {
		return err
	}
	img.Record, img.Size = record, spec.Size
	return nil
}

// recreateClone replaces a clone whose creation was interrupted inside Ceph, at an unknown
// step.
func (i *Images) recreateClone(ctx context.Context, c Cluster, spec ImageSpec, img Image) (Image, error) {
	source, err := i.getSource(ctx, c, spec)
	if err != nil {
		return Image{}, err
	}
	if !isPartialClone(img) && !isParentlessClone(img, source) {
		return Image{}, foreignImageError(img)
	}
	return i.replaceClone(ctx, c, spec, img)
}

// isPartialClone reports whether the image is a clone of one of our snapshots without a
// record of its own. There are three cases:
//
//  1. It has no record.
//  2. It has the copy of its source's record that Ceph made.
//  3. It has one of these with a mark, because its move to the trash was interrupted.
func isPartialClone(img Image) bool {
	if img.RecordError != nil || img.Parent == nil || !isOurSnapshot(img.Parent.Name) {
		return false
	}
	r := img.Record
	marked := r.Source == nil && r.Deleted != nil && r.Deleted.Unused
	return r == (Record{}) || r.ImageID == img.Parent.ImageID || marked
}

// isParentlessClone reports whether an image without a parent is a partial clone of the
// source. There are two cases:
//
//  1. The creation was interrupted early: the image has no record, and the source has the
//     snapshot for it. If the source has too many snapshots, there may be none.
//  2. The creation failed, and Ceph's removal of the clone was interrupted: the image has a
//     copy of the source's record.
func isParentlessClone(img, source Image) bool {
	if img.RecordError != nil || img.Parent != nil {
		return false
	}
	taken := slices.Contains(source.Snapshots, snapshotFor(img.ImageRef)) || len(ourSnapshots(source)) >= maxCloneSnapshots
	return img.Owner().Unknown() && taken || img.Record.ImageID != "" && img.Record.ImageID == source.ID
}

// replaceClone moves a clone that no claim received to the trash, and creates it again. That
// it was never written to is checked when it is removed from the trash: to read a large
// image takes longer than the timeout of a claim.
func (i *Images) replaceClone(ctx context.Context, c Cluster, spec ImageSpec, img Image) (Image, error) {
	if err := i.moveUnusedToTrash(ctx, c, img, spec.Owner); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return i.createClone(ctx, c, spec)
}

// checkReusableClone returns an error if a clone of ours cannot become the clone of the
// spec.
func checkReusableClone(img Image, spec ImageSpec) error {
	if img.Size > spec.Size {
		return fmt.Errorf("%w: %s already exists with a size of %d bytes, requested are %d",
			ErrMismatch, img.ImageRef, img.Size, spec.Size)
	}
	return checkLayout(img, spec)
}

// finishClone completes a clone as its record says.
func (i *Images) finishClone(ctx context.Context, c Cluster, img Image) (Image, error) {
	record := img.Record
	if record.Source == nil {
		return Image{}, fmt.Errorf("%w: %s already exists, and is not a clone", ErrMismatch, img.ImageRef)
	}
	if err := i.updateClone(ctx, c, &img); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	if record.Flatten && img.Parent != nil {
		if err := i.flattener.run(ctx, flattenKey(c, img.ImageRef), func(ctx context.Context) error {
			return i.store.Flatten(ctx, c, img.ImageRef)
		}); err != nil {
			return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
		}
		img.Parent = nil
	}
	if err := i.removeUnusedSnapshot(ctx, c, img); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return img, nil
}

// updateClone sets the recorded size. It also removes a deletion from the record: an earlier
// attempt may have marked the clone as unused, and failed before it moved it to the trash.
func (i *Images) updateClone(ctx context.Context, c Cluster, img *Image) error {
	size := max(img.Size, img.Record.Size)
	var record *Record
	if img.Record.Deleted != nil {
		kept := img.Record
		kept.Deleted = nil
		record = &kept
	}
	if record == nil && size == img.Size {
		return nil
	}
	if err := i.store.Update(ctx, c, *img, record, size); err != nil {
		return err
	}
	if record != nil {
		img.Record = *record
	}
	img.Size = size
	return nil
}
