package rbdutil

import (
	"context"
	"errors"
	"fmt"
)

// Expand grows an image to at least the size in bytes, and returns the image. It never
// shrinks one. It does not change an image that the precondition excludes: ErrForeignImage.
func (i *Images) Expand(ctx context.Context, c Cluster, ref ImageRef, size uint64, precondition Precondition) (Image, error) {
	img, err := i.store.Get(ctx, c, ref)
	if err != nil {
		return Image{}, err
	}
	if err := checkOwner(img, precondition); err != nil {
		return Image{}, err
	}
	if img.Size >= size {
		return img, nil
	}
	if img.Features.Has(migrating) {
		return Image{}, fmt.Errorf("%w: %s", ErrMigrating, ref)
	}
	if most := MaxObjects * img.ObjectSize; size > most {
		return Image{}, fmt.Errorf("%w: with objects of %s, %s cannot be larger than %s", ErrInvalid, quantity(img.ObjectSize), ref, quantity(most))
	}
	err = i.store.Update(ctx, c, img, nil, size)
	if errors.Is(err, ErrInvalid) || errors.Is(err, ErrChanged) {
		// Another client may have expanded the image since.
		now, getErr := i.store.Get(ctx, c, ref)
		if getErr == nil && now.Size >= size && checkOwner(now, precondition) == nil {
			return now, nil
		}
	}
	if err != nil {
		return Image{}, err
	}
	img.Size = size
	return img, nil
}
