package rbdutil

import (
	"fmt"
	"slices"
	"strings"
)

// CheckFree returns an error that names who holds the image, if anybody does. Ceph itself
// refuses to move some of these to the trash, but not all, and does not always say why.
// Snapshots that clones of ours are made of are no obstacle: they go to the trash with the
// image and serve the clones from there.
func CheckFree(img Image) error {
	img.Snapshots = slices.DeleteFunc(slices.Clone(img.Snapshots), isOurSnapshot)
	switch {
	case len(img.Watchers) > 0:
		return inUseError(img)
	case img.Features.Has(migrating):
		return fmt.Errorf("%w: %s", ErrMigrating, img.ImageRef)
	case len(img.Locks) > 0:
		return fmt.Errorf("%w: %s by %s", ErrLocked, img.ImageRef, strings.Join(img.Locks, ", "))
	case img.Group != "":
		return fmt.Errorf("%w: %s is in group %s", ErrInGroup, img.ImageRef, img.Group)
	case img.Mirrored:
		return fmt.Errorf("%w: %s", ErrMirrored, img.ImageRef)
	case len(img.Snapshots) > 0:
		return hasSnapshotsError(img)
	}
	return nil
}

func inUseError(img Image) error {
	return fmt.Errorf("%w: %s is mapped or open at %s", ErrImageInUse, img.ImageRef, strings.Join(img.Watchers, ", "))
}

func hasSnapshotsError(img Image) error {
	if len(img.Clones) > 0 {
		return fmt.Errorf("%w: %s has %s, of which %s are clones", ErrHasSnapshots, img.ImageRef,
			strings.Join(img.Snapshots, ", "), strings.Join(img.Clones, ", "))
	}
	return fmt.Errorf("%w: %s has %s", ErrHasSnapshots, img.ImageRef, strings.Join(img.Snapshots, ", "))
}
