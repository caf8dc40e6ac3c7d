package rbdutil

import (
	"context"
	"time"
)

// Store runs one operation on one image for each call, and returns exactly what happened. It
// is not idempotent: Images is. All methods may be called concurrently. A call returns when
// ctx is done, even if the operation continues in Ceph. Until that ends, other operations on
// the image fail with ErrInProgress, unless both only read.
type Store interface {
	ImageStore
	TrashStore
	CloneStore
}

// ImageStore creates, reads and changes images.
type ImageStore interface {
	// Create creates an empty image of format 2 (`rbd create --size 0`).
	// Errors: ErrImageExists, ErrPoolNotFound, ErrDataPoolNotFound.
	Create(ctx context.Context, c Cluster, ref ImageRef, layout Layout) error
	// Get reads an image (`rbd info`, `rbd status`, `rbd snap ls`, `rbd image-meta
	// get`) without becoming a watcher of it.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	Get(ctx context.Context, c Cluster, ref ImageRef) (Image, error)
	// Update writes the record with the image's id into the metadata, unless it is nil (`rbd
	// image-meta set`), and then sets the size in bytes (`rbd resize`). It does nothing if the
	// image has that size. ErrInvalid: the size is smaller. It changes the image only if the
	// open image is the one seen: same id (if known), record and size.
	// Errors: ErrChanged, ErrLocked, ErrImageNotFound, ErrPoolNotFound.
	Update(ctx context.Context, c Cluster, seen Image, record *Record, size uint64) error
	// List returns the names of all images in a pool, in any order (`rbd ls`).
	// Errors: ErrPoolNotFound.
	List(ctx context.Context, c Cluster, pool string) ([]string, error)
	// HasChanges reports whether the image was written to since a snapshot, or ever if that
	// is empty (`rbd diff --from-snap`). The data of a clone's parent does not count. The
	// larger an image without changes is, the longer it takes.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	HasChanges(ctx context.Context, c Cluster, ref ImageRef, since string) (bool, error)
	// RemovePartial removes the name of an image whose creation or removal was interrupted
	// (`rbd rm`). If this is interrupted as well, an entry in the trash remains.
	// Errors: ErrImageExists (the image is complete, and was not removed),
	// ErrImageNotFound, ErrPoolNotFound.
	RemovePartial(ctx context.Context, c Cluster, ref ImageRef) error
}

// TrashStore moves images to the trash, and removes or restores them.
type TrashStore interface {
	// MoveToTrash writes the record into the image's metadata (`rbd image-meta set`) and
	// moves the image to the pool's trash (`rbd trash mv --expires-at`), where it has no
	// name. The duration does not depend on the size. Ceph does not remove the image before
	// the time to keep it has passed. It acts only if the open image is the one seen (id,
	// record, size) and CheckFree allows it. If the move fails, it restores the record,
	// unless the move may still be completed. Ceph has no trash for images of format 1: they
	// are removed at once (`rbd rm`), or refused with ErrNoTrash if they must be kept.
	// Errors: ErrChanged, those of CheckFree, ErrNoTrash, ErrImageNotFound, ErrPoolNotFound.
	MoveToTrash(ctx context.Context, c Cluster, seen Image, record Record, keep time.Duration) error
	// ListTrash lists the pool's trash (`rbd trash ls --all`), whatever its length.
	// Errors: ErrPoolNotFound.
	ListTrash(ctx context.Context, c Cluster, pool string) ([]TrashedImage, error)
	// GetTrashed reads the record of an image in the trash.
	// Errors: ErrImageNotFound (also if only the entry in the trash is left),
	// ErrForeignImage (no record, or an unreadable one), ErrPoolNotFound.
	GetTrashed(ctx context.Context, c Cluster, pool string, img TrashedImage) (Record, error)
	// RemoveFromTrash removes an image that the maker moved to the trash, with its data
	// (`rbd trash rm`), or the rest of one whose removal was interrupted. It also removes our
	// snapshots of the image if they have no clones, and the snapshot that the image was the
	// last clone of. If the record says that the image is unused, it must not have been
	// written to.
	// Errors: ErrForeignImage (another client moved it), ErrNotExpired, ErrNotEmpty,
	// ErrImageNotFound, ErrImageInUse, ErrHasClones, ErrHasSnapshots, ErrPoolNotFound.
	RemoveFromTrash(ctx context.Context, c Cluster, pool string, img TrashedImage, maker Owner) error
	// Restore moves an image from the trash back to its name (`rbd trash restore`), and
	// removes the deletion from its record. It removes a record that has nothing else.
	// Errors: ErrImageExists (the name is in use), ErrMigrating, ErrImageNotFound,
	// ErrPoolNotFound.
	Restore(ctx context.Context, c Cluster, pool string, img TrashedImage) error
}

// CloneStore creates, reads and flattens clones.
type CloneStore interface {
	// CreateSnapshot creates a protected snapshot (`rbd snap create`, `rbd snap protect`), or
	// protects an existing one of that name.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	CreateSnapshot(ctx context.Context, c Cluster, ref ImageRef, name string) error
	// RemoveSnapshot removes a snapshot without clones (`rbd snap unprotect`, `rbd snap rm`),
	// also of an image in the trash. It succeeds if the snapshot does not exist.
	// Errors: ErrHasClones, ErrPoolNotFound.
	RemoveSnapshot(ctx context.Context, c Cluster, snapshot SnapshotRef) error
	// Clone creates an image of format 2 with the data and size of a protected snapshot
	// (`rbd clone --rbd-default-clone-format 1`). With this format of clones, Ceph adds no
	// features. The object size of the layout is ignored.
	// Errors: ErrImageExists, ErrSourceNotFound (image or snapshot), ErrPoolNotFound,
	// ErrDataPoolNotFound.
	Clone(ctx context.Context, c Cluster, parent ImageRef, snapshot string, ref ImageRef, layout Layout) error
	// CloneDepth returns the length of the image's chain of parents (`rbd info` of each): 0
	// if it is not a clone.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	CloneDepth(ctx context.Context, c Cluster, ref ImageRef) (int, error)
	// Flatten copies the data of the parent into a clone and detaches it (`rbd flatten`). It
	// succeeds if the image has no parent. After an interruption it continues in its place.
	// Errors: ErrImageNotFound, ErrPoolNotFound, ErrNoSpace.
	Flatten(ctx context.Context, c Cluster, ref ImageRef) error
}

// Limiter runs operations on pools, or refuses them with ErrPoolUnavailable. A lengthy
// operation is one whose duration grows with the size of the image.
type Limiter interface {
	Run(ctx context.Context, c Cluster, pool string, lengthy bool, operation func() error) error
}
