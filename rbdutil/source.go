package rbdutil

import (
	"context"
	"errors"
	"fmt"
)

// getSource returns the source if the clone of the spec can be created from it.
func (i *Images) getSource(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
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
		return Image{}, fmt.Errorf("%w: %s lacks feature %s, it has %q", ErrSourceIncompatible, source.ImageRef, Layering, source.Features)
	case source.Size > spec.Size:
		return Image{}, fmt.Errorf("%w: %s has a size of %s: request this size or more", ErrSourceIncompatible, source.ImageRef, quantity(source.Size))
	case spec.Size > MaxObjects*source.ObjectSize:
		return Image{}, fmt.Errorf("%w: requested size is too large for objects of %s, as %s has, maximum is %s",
			ErrSourceIncompatible, quantity(source.ObjectSize), source.ImageRef, quantity(MaxObjects*source.ObjectSize))
	case spec.Source.Unmounted && len(source.Watchers) > 0:
		return Image{}, fmt.Errorf("%w: %w", ErrSourceIncompatible, inUseError(source))
	}
	return i.adoptSource(ctx, c, spec, source)
}

// adoptSource completes the record of a source that lacks its maker or image id. Without
// them, a copy of the record in a clone could not be distinguished from the clone's own, nor
// our snapshots from those of another cluster.
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
