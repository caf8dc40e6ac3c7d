package rbdutil

import (
	"strconv"
	"time"
)

// ImageRef names an image inside a cluster.
type ImageRef struct {
	Pool string
	Name string
}

// String is the form that the rbd command takes.
func (r ImageRef) String() string { return r.Pool + "/" + r.Name }

// Layout is what an image is given at its birth and keeps.
type Layout struct {
	// Features are the features asked for; Ceph may add implicit ones.
	Features Features
	// ObjectSize in bytes; 0 leaves it to Ceph (4 MiB).
	ObjectSize uint64
	// DataPool keeps the data objects, when they are not to be in the image's own
	// pool (an erasure-coded pool, say). Empty for the image's pool.
	DataPool string
}

// ImageSpec is an image as somebody wants it.
type ImageSpec struct {
	ImageRef
	Layout
	// Size in bytes, a whole number of MiB.
	Size uint64
	// Owner is written into the image's metadata and decides whose image it is.
	Owner Owner
	// Source is what the image is to begin with; nil for nothing.
	Source *Source
}

// Source is the image that a clone begins with.
type Source struct {
	ImageRef
	// Expect is what must be true of it; else it is another image of that name.
	Expect Expectation
	// Unmounted wants nobody to have it mapped at the moment of which the clone shows
	// the data, so that its file system needs no recovery.
	Unmounted bool
}

// SnapshotRef names a snapshot of an image that may have lost its name: one that is a
// parent may be in the trash.
type SnapshotRef struct {
	Pool string
	// ImageID is what Ceph knows the image by.
	ImageID string
	Name    string
}

// String is the form in which a clone's metadata keeps it.
func (r SnapshotRef) String() string { return r.Pool + "/" + r.ImageID + "@" + r.Name }

// Image is an image as Ceph shows it.
type Image struct {
	ImageRef
	// ID is what Ceph knows it by, whatever becomes of its name.
	ID string
	// Parent is the snapshot that it is a clone of; nil if it is none.
	Parent *SnapshotRef
	// Size in bytes.
	Size uint64
	// Features includes those that Ceph added by itself.
	Features Features
	// ObjectSize in bytes.
	ObjectSize uint64
	// Metadata holds all image-meta keys, ours and others'.
	Metadata map[string]string
	// Watchers are the addresses of the other clients that have the image mapped or
	// open for writing.
	Watchers []string
	// Snapshots are the names of the user's snapshots.
	Snapshots []string
	// Clones are the images that share data with the snapshots, as POOL/NAME, as far
	// as the user may see them. They are looked for only where others than us have taken
	// snapshots.
	Clones []string
}

// SourceSize is the size in bytes of what a clone was made of; 0 for an image that is
// none, or a clone of somebody else's.
func (i Image) SourceSize() uint64 {
	size, err := strconv.ParseUint(i.Metadata[metaSourceSize], 10, 64)
	if err != nil {
		return 0
	}
	return size
}

// Owner returns who the image's metadata says it was made for.
func (i Image) Owner() Owner { return ownerFromMetadata(i.Metadata) }

// TrashedImage is an image in a pool's trash.
type TrashedImage struct {
	// ID is what Ceph knows it by.
	ID string
	// Name is the one that it had.
	Name string
	// Trashed is when it was put there.
	Trashed time.Time
}
