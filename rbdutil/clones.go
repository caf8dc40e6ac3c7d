package rbdutil

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of clones, beyond which a clone is given all of its data at its birth, so that
// it needs its source no more.
const (
	// maxDepth is how many images a clone may get its data from, one behind the other.
	// The kernel's client takes 16 (its RBD_MAX_PARENT_CHAIN_LEN), and each costs time.
	maxDepth = 8
	// maxSnapshots is how many snapshots an image may have for its clones.
	maxSnapshots = 256
	// mappable is how many snapshots it may have altogether, before one more is taken. The
	// kernel's client cannot map an image with more than 510 (its RBD_MAX_SNAP_COUNT).
	mappable = 480
)

// unchangedPatience bounds finding out whether a source was written to.
const unchangedPatience = 5 * time.Second

// snapshotPrefix begins the name of every snapshot that we take; that of the image for
// which it is taken follows.
const snapshotPrefix = "rbd-provisioner-for-"

// snapshotFor is the name of the snapshot of its source that is taken for a clone.
func snapshotFor(clone ImageRef) string { return snapshotPrefix + clone.Name }

// CloneOf returns the name of the image for which a snapshot was taken, if it was by us.
func CloneOf(snapshot string) (image string, ours bool) {
	return strings.CutPrefix(snapshot, snapshotPrefix)
}

// ourSnapshots are the snapshots of an image that we have taken, in their order.
func ourSnapshots(img Image) []string {
	return slices.DeleteFunc(slices.Clone(img.Snapshots), func(name string) bool { return !isOurSnapshot(name) })
}

func isOurSnapshot(snapshot string) bool {
	_, ours := CloneOf(snapshot)
	return ours
}

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
		img, err = i.beginClone(ctx, c, spec)
	case err == nil && !img.hasRecordFor(spec.Owner):
		img, err = i.recreateClone(ctx, c, spec, img)
	case err == nil:
		if err = cloneFits(img, spec); err != nil && !img.isCompleteClone() {
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
func (i *Images) beginClone(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	source, err := i.sourceOf(ctx, c, spec)
	if err != nil {
		return Image{}, err
	}
	snapshot, err := i.snapshot(ctx, c, spec, source)
	if err != nil {
		return Image{}, err
	}
	err = i.store.Clone(ctx, c, source.ImageRef, snapshot, spec.ImageRef, spec.Layout)
	if errors.Is(err, ErrImageExists) {
		// The name is taken, but there is no image behind it: see begin.
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
	source, err := i.sourceOf(ctx, c, spec)
	if err != nil {
		return Image{}, err
	}
	if !isPartialClone(img) && !isNamelessClone(img, source) {
		return Image{}, foreign(img)
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
func isNamelessClone(img, source Image) bool {
	if img.RecordError != nil || img.Parent != nil {
		return false
	}
	taken := slices.Contains(source.Snapshots, snapshotFor(img.ImageRef)) || len(ourSnapshots(source)) >= maxSnapshots
	return img.Owner().Unknown() && taken || img.Record.ImageID != "" && img.Record.ImageID == source.ID
}

// replaceClone makes the clone again, in the place of one that was never given to a claim.
// Whether anything was written to that is found out before it is removed from the trash: to
// read all of a large image takes longer than a claim waits.
func (i *Images) replaceClone(ctx context.Context, c Cluster, spec ImageSpec, img Image) (Image, error) {
	if err := i.moveToTrash(ctx, c, img, spec.Owner, unused); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return i.beginClone(ctx, c, spec)
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

// sourceOf returns the source if a clone as wanted can be made of it.
func (i *Images) sourceOf(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	source, err := i.store.Get(ctx, c, spec.Source.ImageRef)
	switch {
	case errors.Is(err, ErrImageNotFound), errors.Is(err, ErrPoolNotFound):
		return Image{}, fmt.Errorf("%w: %w", ErrSourceNotFound, err)
	case err != nil:
		return Image{}, err
	}
	if err := checkOwner(source, spec.Source.Precondition); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrSourceNotFound, err)
	}
	switch {
	case source.Features.Has(migrating):
		return Image{}, fmt.Errorf("%w: %w: %s", ErrSourceIncompatible, ErrMigrating, source.ImageRef)
	case !source.Features.Has(Layering):
		return Image{}, fmt.Errorf("%w: %s has the features %q, and %s is not among them", ErrSourceIncompatible, source.ImageRef, source.Features, Layering)
	case source.Size > spec.Size:
		return Image{}, fmt.Errorf("%w: %s has a size of %s: ask for as much or more", ErrSourceIncompatible, source.ImageRef, quantity(source.Size))
	case spec.Size > MaxObjects*source.ObjectSize:
		return Image{}, fmt.Errorf("%w: with objects of %s, like those of %s, an image cannot be so large: ask for %s or less",
			ErrSourceIncompatible, quantity(source.ObjectSize), source.ImageRef, quantity(MaxObjects*source.ObjectSize))
	case spec.Source.Unmounted && len(source.Watchers) > 0:
		return Image{}, fmt.Errorf("%w: %w", ErrSourceIncompatible, inUse(source))
	}
	return i.adoptSource(ctx, c, spec, source)
}

// adoptSource completes the record of a source that does not say who made it or which image
// it is, so that a record that Ceph has copied into a clone can be told from the clone's own,
// and snapshots of this cluster from those of others.
func (i *Images) adoptSource(ctx context.Context, c Cluster, spec ImageSpec, source Image) (Image, error) {
	if has := source.Record; has.ImageID == source.ID && has.Provisioner != "" && has.ClusterID != "" {
		return source, nil
	}
	record := source.Record
	record.VolumeName = spec.Source.Precondition.Owner.VolumeName
	record.Provisioner, record.ClusterID, record.ImageID = spec.Owner.Provisioner, spec.Owner.ClusterID, source.ID
	if err := i.store.Update(ctx, c, source, &record, source.Size); err != nil {
		return Image{}, err
	}
	source.Record = record
	return source, nil
}

// snapshot takes the clone's snapshot of the source and returns the one to make the
// clone of, which is another if the source has many and was not written to since.
func (i *Images) snapshot(ctx context.Context, c Cluster, spec ImageSpec, source Image) (string, error) {
	own := snapshotFor(spec.ImageRef)
	others := slices.DeleteFunc(ourSnapshots(source), func(name string) bool { return name == own })
	crowded := len(others) >= maxSnapshots
	switch {
	case len(source.Snapshots) >= mappable && !crowded:
		return "", fmt.Errorf("%w: %s has %d snapshots, and with many more no node could map it: remove those that are not needed (`rbd snap ls`, `rbd snap rm`)",
			ErrSourceIncompatible, source.ImageRef, len(source.Snapshots))
	case crowded && i.unchanged(ctx, c, source, others[len(others)-1]):
		return others[len(others)-1], nil
	case crowded && i.flattener.isFull():
		return "", errTooManyFlattens
	case spec.Source.Unmounted && slices.Contains(source.Snapshots, own):
		// An earlier attempt may not have come to the point of looking who has it mapped.
		if err := i.store.RemoveSnapshot(ctx, c, SnapshotRef{source.Pool, source.ID, own}); err != nil {
			return "", err
		}
	}
	if err := i.store.CreateSnapshot(ctx, c, source.ImageRef, own); err != nil {
		return "", err
	}
	if !spec.Source.Unmounted {
		return own, nil
	}
	now, err := i.store.Get(ctx, c, source.ImageRef)
	if err == nil && len(now.Watchers) > 0 {
		_ = i.store.RemoveSnapshot(ctx, c, SnapshotRef{source.Pool, source.ID, own}) // the next attempt does it, too
		err = fmt.Errorf("%w: %w", ErrSourceIncompatible, inUse(now))
	}
	return own, err
}

// unchanged reports whether a snapshot shows the source as it is now.
func (i *Images) unchanged(ctx context.Context, c Cluster, source Image, snapshot string) bool {
	ctx, cancel := context.WithTimeout(ctx, unchangedPatience)
	defer cancel()
	written, err := i.store.HasChanges(ctx, c, source.ImageRef, snapshot)
	return err == nil && !written
}

// cloneFits returns an error if a clone of ours cannot become the spec's.
func cloneFits(img Image, spec ImageSpec) error {
	if img.Size > spec.Size {
		return fmt.Errorf("%w: %s already exists with a size of %d bytes, wanted are %d",
			ErrMismatch, img.ImageRef, img.Size, spec.Size)
	}
	return sameLayout(img, spec)
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
	if err := i.releaseUnused(ctx, c, img); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return img, nil
}

// releaseUnused removes the snapshot that was taken for a clone which has no use for it: it
// was flattened, or is made of another snapshot.
func (i *Images) releaseUnused(ctx context.Context, c Cluster, img Image) error {
	own := snapshotFor(img.ImageRef)
	if img.Parent != nil && img.Parent.Name == own {
		return nil
	}
	source := img.Record.Source
	err := i.store.RemoveSnapshot(ctx, c, SnapshotRef{source.Pool, source.ImageID, own})
	if errors.Is(err, ErrHasClones) || errors.Is(err, ErrPoolNotFound) {
		return nil // an earlier attempt is still in the trash, and takes it along
	}
	return err
}

// mustFlatten reports whether a bound of clones requires that the clone has its own copy
// of all data.
func (i *Images) mustFlatten(ctx context.Context, c Cluster, spec ImageSpec, img, source Image) (bool, error) {
	own := snapshotFor(spec.ImageRef)
	others := slices.DeleteFunc(ourSnapshots(source), func(name string) bool { return name == own })
	if img.Parent.Name == own && len(others) >= maxSnapshots {
		return true, nil
	}
	if source.Parent == nil {
		return false, nil // reading the whole chain of parents takes a while
	}
	depth, err := i.store.CloneDepth(ctx, c, spec.ImageRef)
	return depth > maxDepth, err
}

func flattenKey(c Cluster, ref ImageRef) string { return c.String() + " " + ref.String() }

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
	if err := i.removeNameless(ctx, c, ImageRef{source.Pool, clone}, source, owner); err != nil {
		return err
	}
	return i.store.RemoveSnapshot(ctx, c, SnapshotRef{source.Pool, source.ID, snapshot})
}

// removeNameless removes what there is of a clone of the source that has no parent. Only the
// snapshot that bears its name, or the record of the source, shows whose it is.
func (i *Images) removeNameless(ctx context.Context, c Cluster, ref ImageRef, source Image, owner Owner) error {
	img, err := i.store.Get(ctx, c, ref)
	if errors.Is(err, ErrImageNotFound) {
		return nil
	}
	if err != nil || !isNamelessClone(img, source) || CheckFree(img) != nil {
		return err
	}
	if err := i.checkNotWritten(ctx, c, img); err != nil {
		if errors.Is(err, ErrNotEmpty) {
			return nil
		}
		return err
	}
	return i.moveToTrash(ctx, c, img, owner, unused)
}
