package rbdutil

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Images makes a Store safe to repeat. A caller that was killed at any moment, or
// that never learned how a call ended, calls again and gets the same image.
//
// An image is created in three steps whose order shows whose it is: an image of size 0,
// then its record, then its size. An image with a size and without a record was made by
// somebody else. An image of size 0 holds no data.
type Images struct {
	store     Store
	flattener flattener
}

// NewImages returns the idempotent layer over a Store.
func NewImages(store Store) *Images { return &Images{store: store} }

// Ensure returns the image of the spec, made now or by an earlier call. An image
// of that name that has another owner, or ours with another size or other
// features, is left untouched and answered with ErrForeignImage or ErrMismatch.
func (i *Images) Ensure(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	if spec.Source != nil {
		return i.ensureClone(ctx, c, spec)
	}
	img, err := i.begin(ctx, c, spec)
	if err != nil || img.complete(spec) {
		return img, err
	}
	record := &Record{Owner: spec.Owner, ImageID: img.ID, Size: spec.Size}
	if err := i.store.Update(ctx, c, img, record, spec.Size); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	img.Record, img.Size = *record, spec.Size
	return img, nil
}

// complete reports whether the image has everything that the spec asks for.
func (i Image) complete(spec ImageSpec) bool {
	return i.Owner() == spec.Owner && i.Size == spec.Size
}

// begin returns an image that is ours to complete: new, or begun earlier.
func (i *Images) begin(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	fresh := Image{ImageRef: spec.ImageRef, Features: spec.Features, ObjectSize: spec.ObjectSize}
	err := i.store.Create(ctx, c, spec.ImageRef, spec.Layout)
	if err == nil {
		return fresh, nil
	}
	if !errors.Is(err, ErrImageExists) {
		return Image{}, err
	}
	img, err := i.store.Get(ctx, c, spec.ImageRef)
	switch {
	case errors.Is(err, ErrImageNotFound):
		// The name is taken, but there is no image behind it: a creation was interrupted
		// between the name and the header. No data was ever stored there.
		err = i.removePartial(ctx, c, spec.ImageRef)
	case err != nil:
		// It may well be ours, from an earlier attempt.
	case checkReusable(img, spec) == nil:
		return img, nil
	case !isReplaceable(img, spec):
		return Image{}, checkReusable(img, spec)
	default:
		err = i.moveToTrash(ctx, c, img, spec.Owner, unused)
	}
	if err != nil && !errors.Is(err, ErrImageNotFound) {
		return Image{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	if err := i.store.Create(ctx, c, spec.ImageRef, spec.Layout); err != nil {
		return Image{}, err
	}
	return fresh, nil
}

// checkReusable returns why an image that is already there cannot become the spec's.
func checkReusable(img Image, spec ImageSpec) error {
	owner := img.Owner()
	if !owner.SameClaim(spec.Owner) && (!owner.Unknown() || img.Size != 0) || img.RecordError != nil {
		return foreign(img)
	}
	if img.Size != 0 && img.Size != spec.Size {
		return fmt.Errorf("%w: %s already exists with a size of %d bytes, wanted are %d",
			ErrMismatch, img.ImageRef, img.Size, spec.Size)
	}
	if spec.ObjectSize != 0 && img.ObjectSize != spec.ObjectSize {
		return fmt.Errorf("%w: %s already exists with objects of %d bytes, wanted are %d",
			ErrMismatch, img.ImageRef, img.ObjectSize, spec.ObjectSize)
	}
	return sameLayout(img, spec)
}

func foreign(img Image) error {
	if img.RecordError != nil {
		return fmt.Errorf("%w: %s already exists: %w", ErrForeignImage, img.ImageRef, img.RecordError)
	}
	return fmt.Errorf("%w: %s already exists for %s", ErrForeignImage, img.ImageRef, img.Owner())
}

// sameLayout returns an error if the image has other features or another kind of data
// pool than the spec.
func sameLayout(img Image, spec ImageSpec) error {
	if got := img.Features.Requested(); !got.SameAs(spec.Features) {
		return fmt.Errorf("%w: %s already exists with features %s, wanted are %s",
			ErrMismatch, img.ImageRef, got, spec.Features)
	}
	if has := img.Features.Has(dataPool); has != (spec.DataPool != "") {
		return fmt.Errorf("%w: %s already exists with a data pool of its own: %t, wanted: %t",
			ErrMismatch, img.ImageRef, has, !has)
	}
	return nil
}

// isReplaceable reports whether an incomplete image of ours may be replaced by one that
// fits: the class was replaced between two attempts, for example.
func isReplaceable(img Image, spec ImageSpec) bool {
	owner := img.Owner()
	return img.Size == 0 && img.RecordError == nil && len(img.Watchers) == 0 && len(img.Snapshots) == 0 &&
		(owner.Unknown() || owner.SameClaim(spec.Owner))
}

// Precondition is what must be true of an image before it may be changed or deleted.
type Precondition struct {
	// Owner names the volume whose image it must be.
	Owner Owner
	// AllowUnknown also accepts an image without a record, as the predecessors of this
	// provisioner made them.
	AllowUnknown bool
}

// Delete moves the image to the pool's trash, in which it stays at least for the time to
// keep it. That it is gone already is success; a missing pool is not. An image that
// somebody holds, or that is not the one expected, is left untouched. The error names the
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
		return inUse(img) // without opening it for writing, as the move does
	}
	return i.moveToTrash(ctx, c, img, precondition.Owner, trashing{keep: keep})
}

// deletePartial is for an image that cannot be found under its name.
func (i *Images) deletePartial(ctx context.Context, c Cluster, ref ImageRef) error {
	trashed, err := i.trashedAs(ctx, c, ref)
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

// trashing is how an image is moved to the trash.
type trashing struct {
	keep time.Duration
	// unused: see Deletion.
	unused bool
}

var unused = trashing{unused: true}

// moveToTrash moves the image that was seen to the trash. The caller has checked whose
// it is; the Store checks again on the image that it opens.
func (i *Images) moveToTrash(ctx context.Context, c Cluster, seen Image, maker Owner, how trashing) error {
	record := seen.Record
	if record.Unknown() {
		record.Owner = maker
	}
	record.ImageID = seen.ID
	now := time.Now()
	record = record.WithDeletion(maker, Deletion{Time: now, KeepUntil: now.Add(how.keep), Unused: how.unused})
	err := i.store.MoveToTrash(ctx, c, seen, record, how.keep)
	if !errors.Is(err, ErrImageNotFound) {
		return err
	}
	// An earlier call was completed meanwhile, or the pool is full and has no trash yet.
	if _, err := i.store.Get(ctx, c, seen.ImageRef); err == nil {
		return fmt.Errorf("%w: %s can be read, but not moved to the trash", ErrNotRemoved, seen.ImageRef)
	} else if !errors.Is(err, ErrImageNotFound) {
		return err
	}
	return nil
}

// removePartial removes the name that an interrupted creation or removal leaves behind.
// An interrupted move to the trash looks alike, but there all data is still there: that
// move is finished by RemoveFromTrash, or by whoever began it.
func (i *Images) removePartial(ctx context.Context, c Cluster, ref ImageRef) error {
	if trashed, err := i.trashedAs(ctx, c, ref); err != nil || len(trashed) > 0 {
		return err
	}
	switch err := i.store.RemovePartial(ctx, c, ref); {
	case errors.Is(err, ErrImageNotFound):
		return nil
	case errors.Is(err, ErrImageExists):
		return fmt.Errorf("%w: %s is whole, though it could not be found", ErrNotRemoved, ref)
	default:
		return err
	}
}

// trashedAs returns the images in the trash that had the name.
func (i *Images) trashedAs(ctx context.Context, c Cluster, ref ImageRef) ([]TrashedImage, error) {
	trashed, err := i.store.ListTrash(ctx, c, ref.Pool)
	var same []TrashedImage
	for _, img := range trashed {
		if img.Name == ref.Name {
			same = append(same, img)
		}
	}
	return same, err
}

// checkOwner returns an error if the image is not the one expected.
func checkOwner(img Image, precondition Precondition) error {
	owner := img.Owner()
	switch {
	case img.RecordError != nil:
		return fmt.Errorf("%w: %s: %w; if it is the image of volume %s, say so with: %s",
			ErrForeignImage, img.ImageRef, img.RecordError, precondition.Owner.VolumeName, setOwnerCommand(img.ImageRef, precondition))
	case owner.Unknown() && !precondition.AllowUnknown:
		return fmt.Errorf("%w: the metadata of %s names no owner; if it is the image of volume %s, say so with: %s",
			ErrForeignImage, img.ImageRef, precondition.Owner.VolumeName, setOwnerCommand(img.ImageRef, precondition))
	case !owner.Unknown() && !owner.SameVolume(precondition.Owner):
		return fmt.Errorf("%w: the metadata of %s names %s (volume %q, cluster %q), not volume %q of cluster %q",
			ErrForeignImage, img.ImageRef, owner, owner.VolumeName, owner.ClusterID, precondition.Owner.VolumeName, precondition.Owner.ClusterID)
	}
	return nil
}

// setOwnerCommand is the command that makes a volume the owner of an image without a record.
func setOwnerCommand(ref ImageRef, precondition Precondition) string {
	record := Record{Owner: Owner{VolumeName: precondition.Owner.VolumeName}}
	return fmt.Sprintf("rbd image-meta set %s %s '%s'", ref, MetaRecord, record.Encode())
}
