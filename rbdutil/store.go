package rbdutil

import (
	"context"
	"time"
)

// Store does one thing to one image a call, and says honestly what came of it.
// It is not idempotent: that is what Images adds. All methods may be called from
// many goroutines. A call returns when ctx is done, even where the operation goes
// on inside Ceph; until it has come back, calls on that image fail with ErrInProgress,
// unless both only read.
type Store interface {
	ImageStore
	TrashStore
	CloneStore
}

// ImageStore makes images and looks at them.
type ImageStore interface {
	// Create makes an empty image of format 2 (`rbd create --size 0`).
	// Errors: ErrImageExists, ErrPoolNotFound, ErrDataPoolNotFound.
	Create(ctx context.Context, c Cluster, ref ImageRef, layout Layout) error
	// Get reads an image (`rbd info`, `rbd status`, `rbd snap ls`, `rbd image-meta
	// get`) without becoming a watcher of it.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	Get(ctx context.Context, c Cluster, ref ImageRef) (Image, error)
	// Update writes the record into the image's metadata, with the image's id, unless it is
	// nil (`rbd image-meta set`), and then sets the size in bytes (`rbd resize`). A size that the image has
	// already is left alone, a smaller one is refused with ErrInvalid. It acts only if the
	// image that it has open is the one seen: same id (if that is known), record and size.
	// Errors: ErrChanged, ErrLocked, ErrImageNotFound, ErrPoolNotFound.
	Update(ctx context.Context, c Cluster, seen Image, record *Record, size uint64) error
	// List returns the names of all images in a pool, in any order (`rbd ls`).
	// Errors: ErrPoolNotFound.
	List(ctx context.Context, c Cluster, pool string) ([]string, error)
	// HasChanges reports whether anything was written to the image since a snapshot, or ever
	// if that is empty (`rbd diff --from-snap`). What a clone has of its parent was not
	// written to it. The bigger an image that was not, the longer it takes.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	HasChanges(ctx context.Context, c Cluster, ref ImageRef, since string) (bool, error)
	// RemovePartial takes away the name that an image leaves behind whose creation was
	// cut short (`rbd rm`). If it is interrupted itself, the rest is an entry of the trash.
	// Errors: ErrImageExists (there is an image behind the name, which stays),
	// ErrImageNotFound, ErrPoolNotFound.
	RemovePartial(ctx context.Context, c Cluster, ref ImageRef) error
}

// TrashStore takes images away and brings them back.
type TrashStore interface {
	// MoveToTrash writes the record into the image's metadata (`rbd image-meta set`) and
	// moves the image to the pool's trash (`rbd trash mv --expires-at`), where it has no
	// name. That takes the same time for every size. Ceph refuses to remove it from there
	// before the time to keep it has passed. It acts only if the image that it has open is
	// the one seen (id, record, size) and CheckFree allows it. If the move fails, the
	// record is written back as it was seen, unless the move may still be completed. An image of format 1, for which Ceph has no
	// trash, is removed at once (`rbd rm`), or refused with ErrNoTrash if it was to be kept.
	// Errors: ErrChanged, those of CheckFree, ErrNoTrash, ErrImageNotFound, ErrPoolNotFound.
	MoveToTrash(ctx context.Context, c Cluster, seen Image, record Record, keep time.Duration) error
	// ListTrash lists the pool's trash (`rbd trash ls --all`), whatever its length.
	// Errors: ErrPoolNotFound.
	ListTrash(ctx context.Context, c Cluster, pool string) ([]TrashedImage, error)
	// GetTrashed reads the record of an image in the trash.
	// Errors: ErrImageNotFound (nothing is left of it that could have one),
	// ErrForeignImage (no record, or one that cannot be read), ErrPoolNotFound.
	GetTrashed(ctx context.Context, c Cluster, pool string, img TrashedImage) (Record, error)
	// RemoveFromTrash removes an image that the maker has moved to the trash, with its
	// data (`rbd trash rm`), or what is left of one whose removal was interrupted. Snapshots
	// of ours go with it, once nothing is a clone of them; so does the snapshot that it was
	// itself the last clone of. If the record says that it is unused, nothing may have been
	// written to it.
	// Errors: ErrForeignImage (somebody else has moved it there), ErrNotExpired, ErrNotEmpty,
	// ErrImageNotFound, ErrImageInUse, ErrHasClones, ErrHasSnapshots, ErrPoolNotFound.
	RemoveFromTrash(ctx context.Context, c Cluster, pool string, img TrashedImage, maker Owner) error
	// Restore moves an image from the trash back to the name that it had (`rbd trash
	// restore`), and takes the deletion out of its record. A record that says nothing else
	// goes with it.
	// Errors: ErrImageExists (the name is taken), ErrMigrating, ErrImageNotFound,
	// ErrPoolNotFound.
	Restore(ctx context.Context, c Cluster, pool string, img TrashedImage) error
}

// CloneStore makes images of images.
type CloneStore interface {
	// CreateSnapshot takes a protected snapshot (`rbd snap create`, `rbd snap protect`), or
	// protects one of that name which is there.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	CreateSnapshot(ctx context.Context, c Cluster, ref ImageRef, name string) error
	// RemoveSnapshot removes a snapshot that nothing is a clone of (`rbd snap unprotect`, `rbd
	// snap rm`), also of an image in the trash. That it is gone already is success.
	// Errors: ErrHasClones, ErrPoolNotFound.
	RemoveSnapshot(ctx context.Context, c Cluster, snapshot SnapshotRef) error
	// Clone makes an image of format 2 that begins with the data of a protected snapshot
	// and has its size (`rbd clone --rbd-default-clone-format 1`): with this format of
	// clones it has no feature that it is not given. The object size of the layout has no
	// meaning.
	// Errors: ErrImageExists, ErrSourceNotFound (image or snapshot), ErrPoolNotFound,
	// ErrDataPoolNotFound.
	Clone(ctx context.Context, c Cluster, parent ImageRef, snapshot string, ref ImageRef, layout Layout) error
	// CloneDepth returns how many images the image gets its data from, one behind the other
	// (`rbd info`, again and again): 0 for one that is no clone.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	CloneDepth(ctx context.Context, c Cluster, ref ImageRef) (int, error)
	// Flatten copies into a clone what it has of its parent, and cuts it off (`rbd
	// flatten`). That it is cut off already is success. One that was cut short goes on
	// where it was.
	// Errors: ErrImageNotFound, ErrPoolNotFound, ErrNoSpace.
	Flatten(ctx context.Context, c Cluster, ref ImageRef) error
}
