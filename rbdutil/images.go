package rbdutil

import (
	"context"
	"errors"
	"fmt"
)

// Images makes a Store idempotent. After an interruption, or without knowing the result of a
// call, the caller repeats it and gets the same image.
//
// An image is created in three steps: an image of size 0, then its record, then its size. So
// an image with a size but no record was created by another client, and an image of size 0
// holds no data.
type Images struct {
	store     Store
	flattener flattener
}

// NewImages returns the idempotent layer over a Store.
func NewImages(store Store) *Images { return &Images{store: store} }

// List returns the names of all images in a pool, including those that are not ours.
func (i *Images) List(ctx context.Context, c Cluster, pool string) ([]string, error) {
	return i.store.List(ctx, c, pool)
}

// Get returns an image: see Store.
func (i *Images) Get(ctx context.Context, c Cluster, ref ImageRef) (Image, error) {
	return i.store.Get(ctx, c, ref)
}

// Ensure returns the image of the spec, created now or by an earlier call. It does not
// change an existing image with another owner (ErrForeignImage), or one of ours with another
// size or layout (ErrMismatch).
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

// isComplete reports whether the image has the owner and size of the spec.
func (i Image) isComplete(spec ImageSpec) bool {
	return i.Owner() == spec.Owner && i.Size == spec.Size
}

// createOrReuse returns an image that may get the record and size of the spec: a new one, or
// one from an earlier attempt.
func (i *Images) createOrReuse(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	created := Image{ImageRef: spec.ImageRef, Features: spec.Features, ObjectSize: spec.ObjectSize}
	err := i.store.Create(ctx, c, spec.ImageRef, spec.Layout)
	if err == nil {
		return created, nil
	}
	if !errors.Is(err, ErrImageExists) {
		return Image{}, err
	}
	img, err := i.store.Get(ctx, c, spec.ImageRef)
	switch {
	case errors.Is(err, ErrImageNotFound):
		// A creation was interrupted between the name and the header, so there is only the
		// name. No data was ever written.
		err = i.removePartial(ctx, c, spec.ImageRef)
	case err != nil:
		// The image may be ours, from an earlier attempt.
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
	return created, nil
}

// checkReusable returns an error if an existing image cannot become the image of the spec.
func checkReusable(img Image, spec ImageSpec) error {
	owner := img.Owner()
	if !owner.SameClaim(spec.Owner) && (!owner.Unknown() || img.Size != 0) || img.RecordError != nil {
		return foreignImageError(img)
	}
	if img.Size != 0 && img.Size != spec.Size {
		return fmt.Errorf("%w: %s already exists with a size of %d bytes, requested are %d",
			ErrMismatch, img.ImageRef, img.Size, spec.Size)
	}
	if spec.ObjectSize != 0 && img.ObjectSize != spec.ObjectSize {
		return fmt.Errorf("%w: %s already exists with objects of %d bytes, requested are %d",
			ErrMismatch, img.ImageRef, img.ObjectSize, spec.ObjectSize)
	}
	return checkLayout(img, spec)
}

// checkLayout returns an error if the image has other features than the spec, or only one of
// both has a separate data pool.
func checkLayout(img Image, spec ImageSpec) error {
	if got := img.Features.Requested(); !got.SameAs(spec.Features) {
		return fmt.Errorf("%w: %s already exists with features %s, requested are %s",
			ErrMismatch, img.ImageRef, got, spec.Features)
	}
	if has := img.Features.Has(dataPool); has != (spec.DataPool != "") {
		return fmt.Errorf("%w: %s already exists with a separate data pool: %t, requested: %t",
			ErrMismatch, img.ImageRef, has, !has)
	}
	return nil
}

// isReplaceable reports whether an incomplete image of ours may be replaced by one that
// matches the spec. The class may have been replaced between two attempts, for example.
func isReplaceable(img Image, spec ImageSpec) bool {
	owner := img.Owner()
	return img.Size == 0 && img.RecordError == nil && len(img.Watchers) == 0 && len(img.Snapshots) == 0 &&
		(owner.Unknown() || owner.SameClaim(spec.Owner))
}
