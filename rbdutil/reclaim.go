package rbdutil

import (
	"context"
	"fmt"
	"strings"
)

// List returns the names of all images in a pool, also of those that are not ours.
func (i *Images) List(ctx context.Context, c Cluster, pool string) ([]string, error) {
	return i.store.List(ctx, c, pool)
}

// Reclaim puts an image into the trash that was made for a claim and never became a volume. It
// must be an image of that very claim, provisioner and cluster, or the nameless
// beginning of one; and, since whoever calls this has found no trace of claim or
// volume and may be wrong, it must never have been written to, nor be a clone that has
// been a volume, unless its metadata shows that it was never finished. Anything else is left
// untouched and answered with ErrNotOurs, ErrHoldsData, ErrImageInUse or
// ErrHasSnapshots. That it is gone already is success.
func (i *Images) Reclaim(ctx context.Context, c Cluster, ref ImageRef, owner Owner) error {
	return i.trash(ctx, c, ref, owner, func(img Image) error { return i.reclaimable(ctx, c, img, owner) })
}

func (i *Images) reclaimable(ctx context.Context, c Cluster, img Image, owner Owner) error {
	if err := madeFor(img, owner); err != nil {
		return err
	}
	switch {
	case len(img.Watchers) > 0:
		return inUse(img)
	case len(img.Snapshots) > 0:
		return hasSnapshots(img)
	case img.Size == 0, img.Owner().VolumeName != owner.VolumeName:
		return nil
	case img.Metadata[metaHandedOut] != "":
		return fmt.Errorf("%w: %s was a volume, and shows the data of another", ErrHoldsData, img.ImageRef)
	}
	written, err := i.store.Written(ctx, c, img.ImageRef, "")
	if err != nil {
		return err
	}
	if written {
		return fmt.Errorf("%w: %s was written to", ErrHoldsData, img.ImageRef)
	}
	return nil
}

// madeFor wants an image of the owner's claim, or the beginning of one.
func madeFor(img Image, owner Owner) error {
	has := img.Owner()
	// A clone bears the metadata of its source, or none, until it has its own.
	halfClone := img.Parent != nil && ofOurs(img.Parent.Name) && has.ClaimUID != owner.ClaimUID && has.sameMaker(owner)
	switch {
	case halfClone:
		return nil
	case !has.Unknown() && !has.madeBy(owner):
		return fmt.Errorf("%w: %s was made for %s by %q in cluster %q", ErrNotOurs, img.ImageRef, has, has.Provisioner, has.ClusterID)
	case has.Unknown() && img.Size != 0:
		return fmt.Errorf("%w: the metadata of %s names no owner", ErrNotOurs, img.ImageRef)
	}
	return nil
}

func inUse(img Image) error {
	return fmt.Errorf("%w: %s is mapped or open at %s", ErrImageInUse, img.ImageRef, strings.Join(img.Watchers, ", "))
}

func hasSnapshots(img Image) error {
	if len(img.Clones) > 0 {
		return fmt.Errorf("%w: %s has %s, of which %s are clones", ErrHasSnapshots, img.ImageRef,
			strings.Join(img.Snapshots, ", "), strings.Join(img.Clones, ", "))
	}
	return fmt.Errorf("%w: %s has %s", ErrHasSnapshots, img.ImageRef, strings.Join(img.Snapshots, ", "))
}
