package librbd

import (
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// recordText is the metadata value of a record; nil if there is none.
type recordText *string

// readRecord reads the record of an image.
//
// Similar to: rbd image-meta get POOL/IMAGE rbd-provisioner.ceph.com/image
func readRecord(image *rbd.Image) (recordText, error) {
	text, err := image.GetMetadata(rbdutil.MetaRecord)
	switch errno.Of(err) {
	case 0:
		return &text, err
	case syscall.ENOENT:
		// ENOENT also means a missing image, but the image is open.
		return nil, nil
	default:
		return nil, err
	}
}

// writeRecord writes the record of an image, or removes it if the text is nil.
//
// Similar to: rbd image-meta set POOL/IMAGE rbd-provisioner.ceph.com/image VALUE
func writeRecord(image *rbd.Image, text recordText) error {
	if text != nil {
		return image.SetMetadata(rbdutil.MetaRecord, *text)
	}
	err := image.RemoveMetadata(rbdutil.MetaRecord)
	if errno.Of(err) == syscall.ENOENT {
		return nil
	}
	return err
}

// encode returns a record as a metadata value.
func encode(record rbdutil.Record) recordText {
	text := record.Encode()
	return &text
}

// decode parses a metadata value.
func decode(text recordText) (rbdutil.Record, error) {
	if text == nil {
		return rbdutil.Record{}, nil
	}
	return rbdutil.DecodeRecord(*text)
}
