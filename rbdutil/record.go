package rbdutil

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// MetaRecord is the one image-meta key that this project writes. Its value is a Record
// as JSON: `rbd image-meta get POOL/IMAGE rbd-provisioner.ceph.com/image`. One key is
// written in one step, so that a record is there as a whole or not at all.
const MetaRecord = "rbd-provisioner.ceph.com/image"

// Record is what an image says about itself. It suffices to finish, recognise, delete or
// keep the image when nothing else is known of it.
type Record struct {
	Owner
	// ImageID is the id of the image that the record was written to. Ceph copies the record
	// into clones and copies of the image: there, it names another image.
	ImageID string `json:"imageID,omitempty"`
	// Size is the size in bytes that the image is to be given. An image of ours that is
	// smaller is incomplete.
	Size uint64 `json:"size,omitempty"`
	// Source is what a clone was made of; nil for an image that is no clone.
	Source *RecordedSource `json:"source,omitempty"`
	// Flatten: the clone must have its own copy of all data before it is complete.
	Flatten bool `json:"flatten,omitempty"`
	// Deleted is set while the image is moved to the trash, and in the trash.
	Deleted *Deletion `json:"deleted,omitempty"`
}

// Deletion says who moves an image to the trash and when.
type Deletion struct {
	Provisioner string `json:"provisioner"`
	ClusterID   string `json:"clusterID"`
	// Time is read from the clock of the client that moves the image, as is the deletion
	// time that Ceph keeps for the entry in the trash.
	Time time.Time `json:"time"`
	// Began is set while an interrupted move is finished: the time that the entry in the
	// trash has until then. If finishing it is interrupted, too, the entry has one of both.
	Began *time.Time `json:"began,omitempty"`
	// KeepUntil is until when the image was to be kept in the trash.
	KeepUntil time.Time `json:"keepUntil"`
	// Unused: the image never became a volume, and was never written to. If another image
	// has its name by now, that is the one that a volume of this name shows.
	Unused bool `json:"unused,omitempty"`
}

// RecordedSource is what finishing a clone takes, even if the source claim is gone.
type RecordedSource struct {
	SourceVolume
	// SnapshotRef is the snapshot that the clone was made of.
	SnapshotRef
	// Size of that snapshot in bytes.
	Size uint64 `json:"size"`
}

// SourceVolume is what the provisioner knows of a clone's source.
type SourceVolume struct {
	// VolumeName is the name of the source's PersistentVolume.
	VolumeName string `json:"volumeName,omitempty"`
	// FSType is the file system on it, empty for a block volume.
	FSType string `json:"fsType,omitempty"`
	// FSSize is the size in bytes that its file system had, or less.
	FSSize uint64 `json:"fsSize,omitempty"`
}

// deletionTolerance is how much later than its record says an image may have come into
// the trash. The record is written directly before the move. A record that a failed move
// has left on a live image does not cover a later `rbd trash mv` of somebody else.
const deletionTolerance = 2 * time.Minute

// DeletedBy reports whether the record says that the maker moved the image to the trash, and
// this is the entry in the trash that it made: of the same image and time, and to be kept
// there for as long.
func (r Record) DeletedBy(maker Owner, img TrashedImage) bool {
	if !r.DeletionBegunBy(maker) || r.IsCopyIn(img.ID) {
		return false
	}
	near := func(t time.Time) bool { return img.Trashed.Sub(t).Abs() <= deletionTolerance }
	const rounding = 2 * time.Second
	return !img.KeepUntil.Before(r.Deleted.KeepUntil.Add(-rounding)) &&
		(near(r.Deleted.Time) || r.Deleted.Began != nil && near(*r.Deleted.Began))
}

// IsCopyIn reports whether the record was written to another image than that of the id, and
// copied by Ceph.
func (r Record) IsCopyIn(id string) bool { return r.ImageID != "" && id != "" && r.ImageID != id }

// DeletionBegunBy reports whether the record says that the maker began to move the image to
// the trash, whenever that was. If Ceph does not answer for a while between the writing of
// the record and the move, the image comes into the trash much later than the record says.
func (r Record) DeletionBegunBy(maker Owner) bool {
	d := r.Deleted
	return d != nil && d.Provisioner == maker.Provisioner && d.ClusterID == maker.ClusterID
}

// WithDeletion returns the record with a deletion by the maker.
func (r Record) WithDeletion(maker Owner, d Deletion) Record {
	d.Provisioner, d.ClusterID = maker.Provisioner, maker.ClusterID
	d.Time, d.KeepUntil = d.Time.UTC().Truncate(time.Second), d.KeepUntil.UTC().Truncate(time.Second)
	r.Deleted = &d
	return r
}

// Encode returns the metadata value of the record.
func (r Record) Encode() string {
	// Strings, numbers and times: nothing in it can fail to be encoded.
	data, _ := json.Marshal(r) //nolint:errchkjson // see above
	return string(data)
}

// DecodeRecord parses a metadata value. A value that is not a record, or that has fields
// of a version that is not known here, is an error: such an image is left alone.
func DecodeRecord(value string) (Record, error) {
	decoder := json.NewDecoder(bytes.NewReader([]byte(value)))
	decoder.DisallowUnknownFields()
	var r Record
	if err := decoder.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("metadata %s: %w", MetaRecord, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Record{}, fmt.Errorf("metadata %s: there is more than one value", MetaRecord)
	}
	return r, nil
}
