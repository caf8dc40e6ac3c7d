package rbdutil

import (
	"context"
	"errors"
	"fmt"
)

// Grow makes an image at least so large, in bytes, and returns it as it is then. It
// never shrinks one. An image that is not the one expected is left untouched and
// answered with ErrNotOurs.
func (i *Images) Grow(ctx context.Context, c Cluster, ref ImageRef, size uint64, expect Expectation) (Image, error) {
	img, err := i.store.Get(ctx, c, ref)
	if err != nil {
		return Image{}, err
	}
	if err := belongs(img, expect); err != nil {
		return Image{}, err
	}
	if img.Size >= size {
		return img, nil
	}
	if most := MaxObjects * img.ObjectSize; size > most {
		return Image{}, fmt.Errorf("%w: with objects of %s, %s cannot be larger than %s", ErrInvalid, quantity(img.ObjectSize), ref, quantity(most))
	}
	err = i.store.Complete(ctx, c, ref, nil, size)
	if errors.Is(err, ErrInvalid) {
		// Somebody else may have been faster, and have made it larger.
		if now, getErr := i.store.Get(ctx, c, ref); getErr == nil && now.Size >= size {
			return now, nil
		}
	}
	if err != nil {
		return Image{}, err
	}
	img.Size = size
	return img, nil
}
