package librbd

import (
	"fmt"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// trashEntry is an image in a pool's trash.
type trashEntry struct {
	rbdutil.TrashedImage
	pool *rados.IOContext
	ref  rbdutil.ImageRef // for errors
}

// contents is the data of an image that its removal needs.
type contents struct {
	// record is nil if only the entry in the trash is left.
	record *rbdutil.Record
	// snapshots are our snapshots of the image.
	snapshots []string
	// parent is the snapshot that the image is a clone of, or nil.
	parent *rbdutil.SnapshotRef
}

// remove removes an image that the maker moved to the trash, with its data.
func (e trashEntry) remove(s *Store, conn *rados.Conn, maker rbdutil.Owner) error {
	has, err := e.open(maker)
	if err != nil {
		return err
	}
	if time.Now().Before(e.KeepUntil) {
		return e.notExpired()
	}
	for _, snapshot := range has.snapshots {
		if err := s.removeSnapshot(conn, e.pool, rbdutil.SnapshotRef{Pool: e.ref.Pool, ImageID: e.ID, Name: snapshot}); err != nil {
			return err
		}
	}
	const force = false // not before it expires
	err = rbd.TrashRemove(e.pool, e.ID, force)
	if errno.Of(err) == syscall.EUCLEAN {
		if err := e.finishMove(has.record); err != nil {
			return err
		}
		err = rbd.TrashRemove(e.pool, e.ID, force)
	}
	// Before the image expires, Ceph returns EPERM, as for missing capabilities. It compares
	// fractions of seconds, but returns whole ones.
	if errno.Of(err) == syscall.EPERM && time.Now().Before(e.KeepUntil.Add(time.Second)) {
		return e.notExpired()
	}
	if err != nil {
		return removeError("remove", e.ref, err)
	}
	return s.removeParentSnapshot(conn, has.parent)
}

func (e trashEntry) notExpired() error {
	return fmt.Errorf("remove image %s: %w until %s", e.ref, rbdutil.ErrNotExpired, e.KeepUntil.UTC().Format(time.RFC3339))
}

// open reads an image that the maker moved to the trash. If its removal was interrupted, it
// may have neither record nor data any more.
func (e trashEntry) open(maker rbdutil.Owner) (contents, error) {
	image, err := rbd.OpenImageByIdReadOnly(e.pool, e.ID, rbd.NoSnapshot)
	if errno.Of(err) == syscall.ENOENT && !exists(e.pool, headerOf(e.ID)) {
		return contents{}, nil
	}
	if err != nil {
		return contents{}, openTrashedError(e.pool, e.ref, e.ID, err)
	}
	defer closeImage(image)
	record, err := e.recordOf(image, maker)
	if err != nil {
		return contents{}, err
	}
	if record.Deleted.Unused {
		has, err := hasChanges(image, "")
		if err != nil {
			return contents{}, imageError("read", e.ref, err)
		}
		if has {
			return contents{}, fmt.Errorf("remove image %s: %w: it was written to", e.ref, rbdutil.ErrNotEmpty)
		}
	}
	has := contents{record: record}
	snapshots, err := snapshotsOf(image)
	if err != nil {
		return contents{}, imageError("read", e.ref, err)
	}
	for _, s := range snapshots {
		if _, ours := rbdutil.CloneOf(s.name); ours {
			has.snapshots = append(has.snapshots, s.name)
		}
	}
	has.parent, err = parentOf(image)
	return has, imageError("read", e.ref, err)
}

// recordOf returns the record of the image. The record must say that the maker moved the
// image to the trash by the move that created the entry.
func (e trashEntry) recordOf(image *rbd.Image, maker rbdutil.Owner) (*rbdutil.Record, error) {
	text, err := readRecord(image)
	if err != nil {
		return nil, imageError("read the metadata of", e.ref, err)
	}
	record, err := decode(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: image %s: %w", rbdutil.ErrForeignImage, e.ref, err)
	case e.Migrating:
		return nil, fmt.Errorf("%w: image %s is the source of a migration", rbdutil.ErrForeignImage, e.ref)
	case !record.DeletedBy(maker, e.TrashedImage):
		return nil, fmt.Errorf("%w: the record of image %s does not say that %q in cluster %q moved it to the trash at %s",
			rbdutil.ErrForeignImage, e.ref, maker.Provisioner, maker.ClusterID, e.Trashed.UTC().Format(time.RFC3339))
	}
	return &record, nil
}

// finishMove completes an interrupted move to the trash. Ceph does so by the former name of
// the image. Ceph 16 does not change the times of the entry. Another version may set them
// again, so the record gets the new time before, beside that of the entry.
func (e trashEntry) finishMove(record *rbdutil.Record) error {
	other, err := idOf(e.pool, e.Name)
	if err != nil {
		return imageError("read the name of", e.ref, err)
	}
	if other != "" && other != e.ID {
		return fmt.Errorf("finish the move of image %s to the trash: %w: another image has its name %s",
			e.ref, rbdutil.ErrImageExists, e.Name)
	}
	if record != nil && record.Deleted != nil {
		d := *record.Deleted
		maker := rbdutil.Owner{Provisioner: d.Provisioner, ClusterID: d.ClusterID}
		began := e.Trashed.UTC()
		d.Time, d.Began = time.Now(), &began
		if err := e.writeRecord(encode(record.WithDeletion(maker, d))); err != nil {
			return err
		}
	}
	rest := wholeSeconds(time.Until(e.KeepUntil))
	return removeError("move to the trash", e.ref, rbd.GetImage(e.pool, e.Name).Trash(rest))
}

func (e trashEntry) writeRecord(text recordText) error {
	image, err := rbd.OpenImageById(e.pool, e.ID, rbd.NoSnapshot)
	if err != nil {
		return openTrashedError(e.pool, e.ref, e.ID, err)
	}
	defer closeImage(image)
	return imageError("set metadata of", e.ref, writeRecord(image, text))
}

// restore moves the image back to its name, and removes the deletion from its record.
func (e trashEntry) restore() error {
	if err := e.moveBack(); err != nil {
		return err
	}
	return e.clearDeletion()
}

// moveBack moves the image back to its name.
func (e trashEntry) moveBack() error {
	if e.Migrating {
		return fmt.Errorf("restore image %s: %w", e.ref, rbdutil.ErrMigrating)
	}
	err := rbd.TrashRestore(e.pool, e.ID, e.Name)
	// The move to the trash was interrupted, or the removal has begun. In the latter case
	// finishMove fails: the image has no name, by which the move could be completed.
	if code := errno.Of(err); code == syscall.EBUSY || code == syscall.EUCLEAN {
		if err := e.finishMove(nil); err != nil {
			return err
		}
		err = rbd.TrashRestore(e.pool, e.ID, e.Name)
	}
	return errno.Wrap(fmt.Sprintf("restore image %s as %s", e.ref, e.Name), err, map[syscall.Errno]error{
		syscall.EEXIST: rbdutil.ErrImageExists,
		syscall.ENOENT: rbdutil.ErrImageNotFound,
	})
}

// clearDeletion removes the deletion from the record of a restored image. It removes a
// record that has nothing else, and does not change one that cannot be parsed.
func (e trashEntry) clearDeletion() error {
	image, err := rbd.OpenImageById(e.pool, e.ID, rbd.NoSnapshot)
	if err != nil {
		return openTrashedError(e.pool, e.ref, e.ID, err)
	}
	defer closeImage(image)
	text, err := readRecord(image)
	if err != nil {
		return imageError("read the metadata of", e.ref, err)
	}
	record, err := decode(text)
	if err != nil || record.Deleted == nil {
		return nil
	}
	record.Deleted = nil
	if text = encode(record); record == (rbdutil.Record{}) {
		text = nil
	}
	return imageError("set metadata of", e.ref, writeRecord(image, text))
}
