package rbdutil

import (
	"context"
	"errors"
	"fmt"
)

// Expand makes an image at least as large as the size, in bytes, and returns it as it is
// then. It never shrinks one. An image that is not the one expected is left untouched:
// ErrForeignImage.
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
		// Somebody else may have made it larger meanwhile.
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
