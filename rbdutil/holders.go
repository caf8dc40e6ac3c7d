package rbdutil

import (
	"fmt"
	"slices"
	"strings"
)

// CheckFree returns an error that names the holder of the image, if there is one. Ceph
// refuses to move some such images to the trash, but not all, and not always with the
// reason. Our snapshots with clones do not hold an image: they move to the trash with it,
// and the clones read from them there.
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
		return fmt.Errorf("%w: %s has %s with the clones %s", ErrHasSnapshots, img.ImageRef,
			strings.Join(img.Snapshots, ", "), strings.Join(img.Clones, ", "))
	}
	return fmt.Errorf("%w: %s has %s", ErrHasSnapshots, img.ImageRef, strings.Join(img.Snapshots, ", "))
}
