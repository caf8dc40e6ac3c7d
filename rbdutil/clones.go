package rbdutil

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// ensureClone is Ensure for an image that begins with the data of another.
//
// A clone is made in this order:
//  1. A snapshot of the source that bears the clone's name. It shows that the clone is
//     being made, as long as the clone itself cannot.
//  2. The clone. Until step 3 it has no record, or a copy of its source's.
//  3. Its record, with all that the next steps take.
//  4. Its size.
//  5. Its own copy of all data, if the record says so.
//
// After step 3 the source claim may be gone: ResumeClone does the rest.
func (i *Images) ensureClone(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	if i.flattener.isRunning(flattenKey(c, spec.ImageRef)) {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, errFlattening)
	}
	img, err := i.store.Get(ctx, c, spec.ImageRef)
	switch {
	case errors.Is(err, ErrImageNotFound):
		img, err = i.createClone(ctx, c, spec)
	case err == nil && !img.hasRecordFor(spec.Owner):
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

// ResumeClone finishes a clone that was begun for the owner's claim, and returns it, when
// its source cannot be found any more. All that it takes is in the clone's record.
// Errors: ErrImageNotFound (there is none, or it has no record yet).
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

// hasRecordFor reports whether the image says that it was made for the owner's claim.
func (i Image) hasRecordFor(owner Owner) bool {
	return i.RecordError == nil && i.Owner().SameClaim(owner)
}

// isCompleteClone reports whether the image is a clone that lacks nothing, so that it may
// have been given to a claim.
func (i Image) isCompleteClone() bool {
	r := i.Record
	return r.Source != nil && i.Size >= r.Size && (!r.Flatten || i.Parent == nil)
}

// beginClone makes a clone with a record and a size.
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
		// The name is taken, but there is no image behind it: see createOrReuse.
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

// recordClone gives a new clone its record and its size.
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
		// It has the size of the snapshot until it is given another.
		Source: &RecordedSource{SourceVolume: spec.Source.Volume, SnapshotRef: *img.Parent, Size: img.Size},
	}
	if err := i.store.Update(ctx, c, *img, &record, spec.Size); err != nil {
		return err
	}
	img.Record, img.Size = record, spec.Size
	return nil
}

// recreateClone replaces a clone whose making was interrupted inside Ceph, where it is not
// known how far it came.
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

// isPartialClone reports whether an image is a clone of one of ours that was not given its
// own record: it has none, or that of its source, which Ceph has copied.
func isPartialClone(img Image) bool {
	return img.RecordError == nil && img.Parent != nil && isOurSnapshot(img.Parent.Name) &&
		(img.Record == (Record{}) || img.Record.ImageID == img.Parent.ImageID)
}

// isNamelessClone reports whether an image without a parent is what there is of a clone of the
// source: its beginning, without a record, as the snapshot shows that was taken for it (where
// it was to share one, there may be none); or what Ceph leaves when a clone fails and its
// removal is interrupted, with a copy of the record of the source.
func isParentlessClone(img, source Image) bool {
	if img.RecordError != nil || img.Parent != nil {
		return false
	}
	taken := slices.Contains(source.Snapshots, snapshotFor(img.ImageRef)) || len(ourSnapshots(source)) >= maxCloneSnapshots
	return img.Owner().Unknown() && taken || img.Record.ImageID != "" && img.Record.ImageID == source.ID
}

// replaceClone makes the clone again, in the place of one that was never given to a claim.
// Whether anything was written to that is found out before it is removed from the trash: to
// read all of a large image takes longer than a claim waits.
func (i *Images) replaceClone(ctx context.Context, c Cluster, spec ImageSpec, img Image) (Image, error) {
	if err := i.moveUnusedToTrash(ctx, c, img, spec.Owner); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return i.createClone(ctx, c, spec)
}

// cloneFits returns an error if a clone of ours cannot become the spec's.
func checkReusableClone(img Image, spec ImageSpec) error {
	if img.Size > spec.Size {
		return fmt.Errorf("%w: %s already exists with a size of %d bytes, wanted are %d",
			ErrMismatch, img.ImageRef, img.Size, spec.Size)
	}
	return checkLayout(img, spec)
}

// finishClone gives a clone that has a record what the record says.
func (i *Images) finishClone(ctx context.Context, c Cluster, img Image) (Image, error) {
	record := img.Record
	if record.Source == nil {
		return Image{}, fmt.Errorf("%w: %s already exists, and is not a clone", ErrMismatch, img.ImageRef)
	}
	if img.Size < record.Size {
		if err := i.store.Update(ctx, c, img, nil, record.Size); err != nil {
			return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
		}
		img.Size = record.Size
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
