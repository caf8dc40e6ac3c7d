package rbdutil

import "time"

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
	// Volume is what the clone's record is to say about the source.
	Volume SourceVolume
	// Precondition is what must be true of it; else it is another image of that name.
	Precondition Precondition
	// Unmounted: no client may have it mapped when the snapshot is taken, so that the
	// clone's file system needs no recovery.
	Unmounted bool
}

// SnapshotRef names a snapshot of an image that may have lost its name: one that is a
// parent may be in the trash.
type SnapshotRef struct {
	Pool string `json:"pool"`
	// ImageID is what Ceph knows the image by.
	ImageID string `json:"imageID"`
	Name    string `json:"snapshot"`
}

// String names it for an error message.
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
	// Record is what the image says about itself; empty if nothing.
	Record Record
	// RecordError is why its record cannot be read; nil if it can or if there is none.
	RecordError error
	// Watchers are the addresses of the other clients that have the image mapped or
	// open for writing.
	Watchers []string
	// Snapshots are the names of the user's snapshots.
	Snapshots []string
	// Clones are the images that share data with the snapshots, as POOL/NAME, as far
	// as the user may see them. They are looked for only where others than us have taken
	// snapshots.
	Clones []string

	// The rest is read only when the image is about to be deleted.

	// Locks are the locks that were set on purpose (`rbd lock ls`), each as it has to be
	// named to `rbd lock rm`. Locks that the feature exclusive-lock manages are not among them.
	Locks []string
	// Group is the name of the group that it is a member of, or empty.
	Group string
	// Mirrored: it is mirrored to another cluster, or from one.
	Mirrored bool
}

// Owner returns who the image's record says it was made for.
func (i Image) Owner() Owner { return i.Record.Owner }

// Same reports whether the image seen is this one, unchanged: same id, as far as both are
// known, same record and size.
func (i Image) Same(seen Image) bool {
	return (i.ID == "" || seen.ID == "" || i.ID == seen.ID) && i.Size == seen.Size &&
		(i.RecordError == nil) == (seen.RecordError == nil) && i.Record.Encode() == seen.Record.Encode()
}

// TrashedImage is an image in a pool's trash.
type TrashedImage struct {
	// ID is what Ceph knows it by.
	ID string
	// Name is the one that it had.
	Name string
	// Trashed is when it was put there.
	Trashed time.Time
	// KeepUntil is when Ceph lets it be removed.
	KeepUntil time.Time
	// Migrating: it is the source of a migration that was prepared (`rbd migration prepare`)
	// and neither committed nor aborted.
	Migrating bool
}
