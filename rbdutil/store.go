package rbdutil

import "context"

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
	// list`) without becoming a watcher of it.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	Get(ctx context.Context, c Cluster, ref ImageRef) (Image, error)
	// Complete sets the metadata in the order given (`rbd image-meta set`) and
	// then the size in bytes (`rbd resize`); a size that the image has already is
	// left alone, a smaller one is refused with ErrInvalid.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	Complete(ctx context.Context, c Cluster, ref ImageRef, metadata []MetadataItem, size uint64) error
	// List returns the names of all images in a pool, in any order (`rbd ls`).
	// Errors: ErrPoolNotFound.
	List(ctx context.Context, c Cluster, pool string) ([]string, error)
	// Written tells whether anything was written to the image since a snapshot, or ever
	// if that is empty (`rbd diff --from-snap`). What a clone has of its parent was not
	// written to it. The bigger an image that was not, the longer it takes.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	Written(ctx context.Context, c Cluster, ref ImageRef, since string) (bool, error)
	// RemoveRemains takes away the name that an image leaves behind whose creation was
	// cut short (`rbd rm`). If it is cut short itself, Trashed and Purge see the rest.
	// Errors: ErrImageExists (there is an image behind the name, which stays),
	// ErrImageNotFound, ErrPoolNotFound.
	RemoveRemains(ctx context.Context, c Cluster, ref ImageRef) error
}

// TrashStore takes images away.
type TrashStore interface {
	// Trash writes the mark into the image's metadata (`rbd image-meta set`) and moves
	// it to the pool's trash (`rbd trash mv`), which takes the same time whatever its
	// size. There it has no name any more. An image of format 1, for which Ceph has no
	// trash, is removed at once (`rbd rm`).
	// Errors: ErrImageNotFound, ErrImageInUse, ErrInGroup, ErrPoolNotFound.
	Trash(ctx context.Context, c Cluster, ref ImageRef, mark Mark) error
	// Trashed lists the pool's trash (`rbd trash ls`).
	// Errors: ErrPoolNotFound.
	Trashed(ctx context.Context, c Cluster, pool string) ([]TrashedImage, error)
	// Purge removes an image with the mark, and its data, from the trash (`rbd trash
	// rm`), or what is left of one whose removal was cut short. Snapshots of ours go with
	// it, once nothing is a clone of them; so does the snapshot that it was itself the
	// last clone of.
	// Errors: ErrImageNotFound, ErrNotOurs (it has another mark, an old one or none),
	// ErrImageInUse, ErrHasClones, ErrHasSnapshots, ErrPoolNotFound.
	Purge(ctx context.Context, c Cluster, pool string, img TrashedImage, mark Mark) error
}

// CloneStore makes images of images.
type CloneStore interface {
	// Snapshot takes a protected snapshot (`rbd snap create`, `rbd snap protect`), or
	// protects one of that name which is there.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	Snapshot(ctx context.Context, c Cluster, ref ImageRef, name string) error
	// Release removes a snapshot that nothing is a clone of (`rbd snap unprotect`, `rbd
	// snap rm`), also of an image in the trash. That it is gone already is success.
	// Errors: ErrHasClones, ErrPoolNotFound.
	Release(ctx context.Context, c Cluster, snapshot SnapshotRef) error
	// Clone makes an image of format 2 that begins with the data of a protected snapshot
	// and has its size (`rbd clone --rbd-default-clone-format 1`): with this format of
	// clones it has no feature that it is not given. The object size of the layout has no
	// meaning.
	// Errors: ErrImageExists, ErrSourceNotFound (image or snapshot), ErrPoolNotFound,
	// ErrDataPoolNotFound.
	Clone(ctx context.Context, c Cluster, parent ImageRef, snapshot string, ref ImageRef, layout Layout) error
	// Depth tells how many images the image gets its data from, one behind the other
	// (`rbd info`, again and again): 0 for one that is no clone.
	// Errors: ErrImageNotFound, ErrPoolNotFound.
	Depth(ctx context.Context, c Cluster, ref ImageRef) (int, error)
	// Flatten copies into a clone what it has of its parent, and cuts it off (`rbd
	// flatten`). That it is cut off already is success. One that was cut short goes on
	// where it was.
	// Errors: ErrImageNotFound, ErrPoolNotFound, ErrNoSpace.
	Flatten(ctx context.Context, c Cluster, ref ImageRef) error
}
