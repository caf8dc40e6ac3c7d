package rbdutil

import "time"

// ImageRef names an image inside a cluster.
type ImageRef struct {
	Pool string
	Name string
}

// String returns the form that the rbd command accepts.
func (r ImageRef) String() string { return r.Pool + "/" + r.Name }

// Layout is what an image gets at its creation and keeps.
type Layout struct {
	// Features are the requested features; Ceph may add implicit ones.
	Features Features
	// ObjectSize in bytes; 0 means DefaultObjectSize.
	ObjectSize uint64
	// DataPool stores the data objects, in an erasure-coded pool for example. If it is
	// empty, the pool of the image does.
	DataPool string
}

// ImageSpec describes a requested image.
type ImageSpec struct {
	ImageRef
	Layout
	// Size in bytes, a whole number of MiB.
	Size uint64
	// Owner is written into the image's metadata.
	Owner Owner
	// Source is nil unless the image is a clone.
	Source *Source
}

// Source is the image that a clone is made from.
type Source struct {
	ImageRef
	// Volume is written into the clone's record.
	Volume SourceVolume
	// Precondition is what the source must fulfil. Otherwise it is another image of that name.
	Precondition Precondition
	// Unmounted: no client may have it mapped when the snapshot is created, so the file
	// system of the clone needs no recovery.
	Unmounted bool
}

// SnapshotRef identifies a snapshot by the id of its image: the image may have no name, as
// it may be in the trash.
type SnapshotRef struct {
	Pool string `json:"pool"`
	// ImageID is Ceph's id of the image.
	ImageID string `json:"imageID"`
	Name    string `json:"snapshot"`
}

// String describes the snapshot in an error.
func (r SnapshotRef) String() string { return r.Pool + "/" + r.ImageID + "@" + r.Name }

// Image is an image as read from Ceph.
type Image struct {
	ImageRef
	// ID is Ceph's id, which does not change with the name. Images of format 1 have none.
	ID string
	// Parent is the snapshot that the image is a clone of, or nil.
	Parent *SnapshotRef
	// Size in bytes.
	Size uint64
	// Features includes those that Ceph added.
	Features Features
	// ObjectSize in bytes.
	ObjectSize uint64
	// Record is the record in the metadata, or empty.
	Record Record
	// RecordError is why the record could not be parsed, or nil.
	RecordError error
	// Watchers are the addresses of other clients that have the image mapped or open
	// for writing.
	Watchers []string
	// Snapshots are the names of the user's snapshots.
	Snapshots []string
	// Clones are the clones of the snapshots, as POOL/NAME, if the user may see them. They
	// are read only if the image has snapshots that are not ours.
	Clones []string

	// The fields below are read only before the image is deleted.

	// Locks are the locks of `rbd lock add`, in the form that `rbd lock rm` accepts. They do
	// not include the locks of the feature exclusive-lock.
	Locks []string
	// Group is the name of the image's group, or empty.
	Group string
	// Mirrored: the image is mirrored to another cluster, or from one.
	Mirrored bool
}

// Owner returns the owner in the image's record.
func (i Image) Owner() Owner { return i.Record.Owner }

// Same reports whether the image is the one seen, and unchanged: same id (if both are
// known), record and size.
func (i Image) Same(seen Image) bool {
	return (i.ID == "" || seen.ID == "" || i.ID == seen.ID) && i.Size == seen.Size &&
		(i.RecordError == nil) == (seen.RecordError == nil) && i.Record.Encode() == seen.Record.Encode()
}

// TrashedImage is an image in a pool's trash.
type TrashedImage struct {
	// ID is Ceph's id.
	ID string
	// Name is the name before the move.
	Name string
	// Trashed is the time of the move.
	Trashed time.Time
	// KeepUntil is the time before which Ceph does not remove it.
	KeepUntil time.Time
	// Migrating: it is the source of a migration (`rbd migration prepare`) that was neither
	// committed nor aborted.
	Migrating bool
}
