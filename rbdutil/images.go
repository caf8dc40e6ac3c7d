package rbdutil

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Images makes a Store safe to repeat. A caller that was killed at any moment, or
// that never learned how a call ended, calls again and gets the same image.
//
// An image is born in three steps whose order carries the proof of whose it is:
// an image of size 0, then the owner in its metadata, then its size. Whatever
// has no owner and a size was made by somebody else; whatever has size 0 holds no
// byte of anybody's data.
type Images struct {
	store  Store
	copies copies
}

// NewImages returns the idempotent layer over a Store.
func NewImages(store Store) *Images { return &Images{store: store} }

// Ensure returns the image of the spec, made now or by an earlier call. An image
// of that name that has another owner, or ours with another size or other
// features, is left untouched and answered with ErrNotOurs or ErrMismatch.
func (i *Images) Ensure(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	if spec.Source != nil {
		return i.ensureClone(ctx, c, spec)
	}
	img, err := i.begin(ctx, c, spec)
	if err != nil {
		return Image{}, err
	}
	missing := spec.Owner.missingFrom(img.Metadata)
	if len(missing) == 0 && img.Size == spec.Size {
		return img, nil
	}
	if err := i.store.Complete(ctx, c, spec.ImageRef, missing, spec.Size); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	if img.Metadata == nil {
		img.Metadata = map[string]string{}
	}
	for _, item := range missing {
		img.Metadata[item.Key] = item.Value
	}
	img.Size = spec.Size
	return img, nil
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
	makeRoom := i.store.Trash
	switch {
	case errors.Is(err, ErrImageNotFound):
		// The name is taken, yet there is no image behind it: a creation was cut
		// short between the name and the header. Nothing was ever stored there.
		makeRoom = func(ctx context.Context, c Cluster, ref ImageRef, _ Mark) error { return i.removeRemains(ctx, c, ref) }
	case err != nil:
		// It may well be ours, from an earlier attempt.
		return Image{}, fmt.Errorf("%w: %w", ErrUnfinished, err)
	case usable(img, spec) == nil:
		return img, nil
	case !discardable(img, spec):
		return Image{}, usable(img, spec)
	}
	if err := makeRoom(ctx, c, spec.ImageRef, markOf(spec.Owner)); err != nil && !errors.Is(err, ErrImageNotFound) {
		return Image{}, fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	if err := i.store.Create(ctx, c, spec.ImageRef, spec.Layout); err != nil {
		return Image{}, err
	}
	return fresh, nil
}

// usable tells whether an image that is already there may become the spec's.
func usable(img Image, spec ImageSpec) error {
	owner := img.Owner()
	if !owner.SameClaim(spec.Owner) && (!owner.Unknown() || img.Size != 0) {
		return fmt.Errorf("%w: %s already exists for %s", ErrNotOurs, img.ImageRef, owner)
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

// sameLayout tells whether the image has the features and the data pool of the spec.
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

// discardable tells whether an unfinished image of ours may make room for one that
// fits: the class was replaced between two attempts, say.
func discardable(img Image, spec ImageSpec) bool {
	owner := img.Owner()
	return img.Size == 0 && len(img.Watchers) == 0 && len(img.Snapshots) == 0 &&
		(owner.Unknown() || owner.SameClaim(spec.Owner))
}

// Expectation is what must be true of an image before it may be deleted.
type Expectation struct {
	// Owner names the volume whose image it must be.
	Owner Owner
	// AllowUnknown also accepts an image whose metadata names nobody, as the
	// predecessors of this provisioner made them.
	AllowUnknown bool
}

// Delete puts the image into the pool's trash, from which Purge removes it for good.
// That it is gone already is success; a missing pool is not. An image that somebody
// holds, that has snapshots, or that is not the one expected is left untouched and
// answered with ErrImageInUse, ErrHasSnapshots or ErrNotOurs, naming the holders.
func (i *Images) Delete(ctx context.Context, c Cluster, ref ImageRef, expect Expectation) error {
	return i.trash(ctx, c, ref, expect.Owner, func(img Image) error { return deletable(img, expect) })
}

// trash moves the image to the trash if the check allows it.
func (i *Images) trash(ctx context.Context, c Cluster, ref ImageRef, owner Owner, check func(Image) error) error {
	img, err := i.store.Get(ctx, c, ref)
	if errors.Is(err, ErrImageNotFound) {
		return i.removeRemains(ctx, c, ref)
	}
	if err != nil {
		return err
	}
	if err := check(img); err != nil {
		return err
	}
	err = i.store.Trash(ctx, c, ref, markOf(owner))
	if !errors.Is(err, ErrImageNotFound) {
		return err
	}
	// Somebody else was faster, or the pool is full and has no trash yet.
	if _, err := i.store.Get(ctx, c, ref); err == nil {
		return fmt.Errorf("%w: %s can be read, but not moved to the trash", ErrStays, ref)
	} else if !errors.Is(err, ErrImageNotFound) {
		return err
	}
	return nil
}

// removeRemains takes the name away that a creation or removal leaves behind when it is
// cut short. A way into the trash that is cut short looks alike, but there all data is
// left: that is for Purge to finish, or for whoever put it there.
func (i *Images) removeRemains(ctx context.Context, c Cluster, ref ImageRef) error {
	trashed, err := i.store.Trashed(ctx, c, ref.Pool)
	if err != nil {
		return err
	}
	for _, img := range trashed {
		if img.Name == ref.Name {
			return nil
		}
	}
	switch err := i.store.RemoveRemains(ctx, c, ref); {
	case errors.Is(err, ErrImageNotFound):
		return nil
	case errors.Is(err, ErrImageExists):
		return fmt.Errorf("%w: %s is whole, though it could not be found", ErrStays, ref)
	default:
		return err
	}
}

// Purge removes the images from a pool's trash that Delete or Reclaim has put there
// for the same cluster and provisioner, of those whose name began so. It returns how many
// it removed, and why others stay; those are tried again when it is called again. One
// that has clones stays without a word: it can go when the last of them is removed.
func (i *Images) Purge(ctx context.Context, c Cluster, pool, prefix string, owner Owner) (int, error) {
	total := 0
	for {
		purged, err := i.purgeOnce(ctx, c, pool, prefix, owner)
		total += purged
		// What was removed may have been the last clone of another.
		if purged == 0 || err != nil {
			return total, err
		}
	}
}

func (i *Images) purgeOnce(ctx context.Context, c Cluster, pool, prefix string, owner Owner) (int, error) {
	trashed, err := i.store.Trashed(ctx, c, pool)
	if err != nil {
		return 0, err
	}
	purged := 0
	var errs []error
	for _, img := range trashed {
		if !strings.HasPrefix(img.Name, prefix) {
			continue
		}
		switch err := i.store.Purge(ctx, c, pool, img, markOf(owner)); {
		case err == nil:
			purged++
		case errors.Is(err, ErrNotOurs), errors.Is(err, ErrImageNotFound), errors.Is(err, ErrInProgress), errors.Is(err, ErrHasClones):
		default:
			errs = append(errs, err)
		}
	}
	return purged, errors.Join(errs...)
}

// belongs tells whether the image is the one expected.
func belongs(img Image, expect Expectation) error {
	owner := img.Owner()
	switch {
	case owner.Unknown() && !expect.AllowUnknown:
		return fmt.Errorf("%w: the metadata of %s names no owner; if it is the image of volume %s, say so with: rbd image-meta set %s %s %s",
			ErrNotOurs, img.ImageRef, expect.Owner.VolumeName, img.ImageRef, metaVolumeName, expect.Owner.VolumeName)
	case !owner.Unknown() && !owner.SameVolume(expect.Owner):
		return fmt.Errorf("%w: the metadata of %s names %s (volume %q, cluster %q), not volume %q of cluster %q",
			ErrNotOurs, img.ImageRef, owner, owner.VolumeName, owner.ClusterID, expect.Owner.VolumeName, expect.Owner.ClusterID)
	}
	return nil
}

// deletable tells whether the image may go into the trash. Snapshots that clones of ours
// are made of go there with it, and serve them from there.
func deletable(img Image, expect Expectation) error {
	if err := belongs(img, expect); err != nil {
		return err
	}
	if len(img.Watchers) > 0 {
		return inUse(img)
	}
	if img.Snapshots = slices.DeleteFunc(slices.Clone(img.Snapshots), ofOurs); len(img.Snapshots) > 0 {
		return hasSnapshots(img)
	}
	return nil
}
