package rbdutil

import "context"

// Store does one thing to one image a call, and says honestly what came of it.
// It is not idempotent: that is what Images adds. All methods may be called from
// many goroutines. A call returns when ctx is done, even where the operation goes
// on inside Ceph; further calls on that image then fail with ErrInProgress until
// it has come back.
type Store interface {
	// Create makes an empty image of format 2 (`rbd create --size 0`).
	// Errors: ErrImageExists, ErrPoolNotFound, ErrDataPoolNotFound.
	Create(ctx context.Context, c Cluster, ref ImageRef, layout Layout) error
	// Get reads an image (`rbd info`, `rbd status`, `rbd snap ls`, `rbd image-meta
	// list`) without becoming a watcher of it.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	Get(ctx context.Context, c Cluster, ref ImageRef) (Image, error)
	// Complete sets the metadata in the order given (`rbd image-meta set`) and
	// then the size in bytes (`rbd resize`); a size that the image has already is
	// left alone, a smaller one is refused with ErrInvalid.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	Complete(ctx context.Context, c Cluster, ref ImageRef, metadata []MetadataItem, size uint64) error
	// Remove removes the image and its data, or what is left of an image whose
	// creation or removal was cut short (`rbd rm`).
	// Errors: ErrImageNotFound, ErrImageInUse, ErrHasSnapshots, ErrInGroup,
	// ErrPoolNotFound.
	Remove(ctx context.Context, c Cluster, ref ImageRef) error
	// Trash writes the mark into the image's metadata (`rbd image-meta set`) and moves
	// it to the pool's trash (`rbd trash mv`), which takes the same time whatever its
	// size. There it has no name any more.
	// Errors: ErrImageNotFound, ErrImageInUse, ErrInGroup, ErrPoolNotFound.
	Trash(ctx context.Context, c Cluster, ref ImageRef, mark Mark) error
	// Trashed lists the pool's trash (`rbd trash ls`).
	// Errors: ErrPoolNotFound.
	Trashed(ctx context.Context, c Cluster, pool string) ([]TrashedImage, error)
	// Purge removes an image with the mark, and its data, from the trash (`rbd trash
	// rm`), or what is left of one whose removal was cut short.
	// Errors: ErrImageNotFound, ErrNotOurs (it has another mark, an old one or none),
	// ErrImageInUse, ErrHasSnapshots, ErrPoolNotFound.
	Purge(ctx context.Context, c Cluster, pool string, img TrashedImage, mark Mark) error
	// List returns the names of all images in a pool, in any order (`rbd ls`).
	// Errors: ErrPoolNotFound.
	List(ctx context.Context, c Cluster, pool string) ([]string, error)
	// Written tells whether anything was ever written to the image (`rbd diff`). The
	// bigger an image that was not, the longer it takes.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	Written(ctx context.Context, c Cluster, ref ImageRef) (bool, error)
}
