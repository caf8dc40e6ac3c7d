package rbdutil

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// MetaRecord is the only image-meta key that this project writes. Its value is a Record as
// JSON: `rbd image-meta get POOL/IMAGE rbd-provisioner.ceph.com/image`. Ceph writes one key
// atomically, so a record is complete or missing.
const MetaRecord = "rbd-provisioner.ceph.com/image"

// Record is the metadata of an image. It suffices to complete, identify, delete or keep the
// image without any other data.
type Record struct {
	Owner
	// ImageID is the id of the image that the record was written to. Ceph copies the record into
	// clones and copies of the image: in those, the id is of another image.
	ImageID string `json:"imageID,omitempty"`
	// Size is the requested size in bytes. An image of ours that is smaller is incomplete.
	Size uint64 `json:"size,omitempty"`
	// Source is nil unless the image is a clone.
	Source *RecordedSource `json:"source,omitempty"`
	// Flatten: the clone must be flattened before it is complete.
	Flatten bool `json:"flatten,omitempty"`
	// Deleted is set during the move to the trash, and in the trash.
	Deleted *Deletion `json:"deleted,omitempty"`
}

// Deletion is who moved an image to the trash, and when.
type Deletion struct {
	Provisioner string `json:"provisioner"`
	ClusterID   string `json:"clusterID"`
	// Time is from the clock of the client that moves the image, as is the deletion time
	// of the entry in the trash.
	Time time.Time `json:"time"`
	// Began is set while an interrupted move is completed. It is the time of the entry in
	// the trash before that. If this is interrupted as well, the entry has one of both times.
	Began *time.Time `json:"began,omitempty"`
	// KeepUntil is the time until which the image must be kept in the trash.
	KeepUntil time.Time `json:"keepUntil"`
	// Unused: the image never became a volume, and was never written to. If there is another
	// image of its name, volumes refer to that one.
	Unused bool `json:"unused,omitempty"`
}

// RecordedSource is the data that completing a clone needs, even if the source claim does
// not exist.
type RecordedSource struct {
	SourceVolume
	// SnapshotRef is the snapshot that the clone was made from.
	SnapshotRef
	// Size of that snapshot in bytes.
	Size uint64 `json:"size"`
}

// SourceVolume is the provisioner's data about the source of a clone.
type SourceVolume struct {
	// VolumeName is the name of the source's PersistentVolume.
	VolumeName string `json:"volumeName,omitempty"`
	// FSType is its file system, empty for a block volume.
	FSType string `json:"fsType,omitempty"`
	// FSSize is the size of its file system in bytes, or less.
	FSSize uint64 `json:"fsSize,omitempty"`
}

// deletionTolerance is the maximum time between the record and the move to the trash. The
// record is written directly before the move. A record that a failed move left on an image
// does not cover a later `rbd trash mv` by another client.
const deletionTolerance = 2 * time.Minute

// DeletedBy reports whether the record says that the maker moved the image to the trash, by
// the move that created this entry: same image, same time, and kept for as long.
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
// the trash, at any time. If Ceph did not answer between the writing of the record and the
// move, the move is much later than the record says.
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

// Encode returns the record as a metadata value.
func (r Record) Encode() string {
	// Strings, numbers and times can always be encoded.
	data, _ := json.Marshal(r) //nolint:errchkjson // see above
	return string(data)
}

// DecodeRecord parses a metadata value. It returns an error for a value that is not a
// record, or has fields of an unknown version: such an image is not changed.
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
