package rbdutil

import (
	"context"
	"errors"
	"fmt"
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

// List returns the names of all images in a pool, also of those that are not ours.
func (i *Images) List(ctx context.Context, c Cluster, pool string) ([]string, error) {
	return i.store.List(ctx, c, pool)
}

// Get returns an image as it is: see Store.
func (i *Images) Get(ctx context.Context, c Cluster, ref ImageRef) (Image, error) {
	return i.store.Get(ctx, c, ref)
}

// Ensure returns the image of the spec, made now or by an earlier call. An image
// of that name that has another owner, or ours with another size or other
// features, is left untouched and answered with ErrForeignImage or ErrMismatch.
func (i *Images) Ensure(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	if spec.Source != nil {
		return i.ensureClone(ctx, c, spec)
	}
	img, err := i.createOrReuse(ctx, c, spec)
	if err != nil || img.isComplete(spec) {
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
func (i Image) isComplete(spec ImageSpec) bool {
	return i.Owner() == spec.Owner && i.Size == spec.Size
}

// begin returns an image that is ours to complete: new, or begun earlier.
func (i *Images) createOrReuse(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
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
		err = i.moveUnusedToTrash(ctx, c, img, spec.Owner)
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
		return foreignImageError(img)
	}
	if img.Size != 0 && img.Size != spec.Size {
		return fmt.Errorf("%w: %s already exists with a size of %d bytes, wanted are %d",
			ErrMismatch, img.ImageRef, img.Size, spec.Size)
	}
	if spec.ObjectSize != 0 && img.ObjectSize != spec.ObjectSize {
		return fmt.Errorf("%w: %s already exists with objects of %d bytes, wanted are %d",
			ErrMismatch, img.ImageRef, img.ObjectSize, spec.ObjectSize)
	}
	return checkLayout(img, spec)
}

// sameLayout returns an error if the image has other features or another kind of data
// pool than the spec.
func checkLayout(img Image, spec ImageSpec) error {
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
