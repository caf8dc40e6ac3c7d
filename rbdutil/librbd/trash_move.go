package librbd

import (
	"fmt"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/cephconn"
)

// trashMove is one call of MoveToTrash.
type trashMove struct {
	conn   *rados.Conn
	pool   *rados.IOContext
	seen   rbdutil.Image
	record rbdutil.Record
	keep   time.Duration
}

// run checks the open image, and writes the record to it. Ceph moves images by name only,
// and does not check which clients have them open. If a client opens the image after the
// check, it is removed from the trash after that client has closed it. If another image gets
// the name after the check, that image has no record of this deletion, so it is never
// removed from the trash.
func (m trashMove) run() error {
	ref := m.seen.ImageRef
	image, err := rbd.OpenImage(m.pool, ref.Name, rbd.NoSnapshot)
	if err != nil {
		return openError(m.pool, ref, err)
	}
	img, before, partial, err := m.check(image)
	if err != nil || partial != nil || isFormat1(img) {
		closeImage(image)
		switch {
		case err != nil:
			return err
		case partial != nil:
			// The entry has the times of the interrupted move. They match neither the record
			// nor the time to keep the image.
			if err := partial.moveBack(); err != nil {
				return err
			}
			return m.run()
		}
		return m.removeFormat1()
	}
	err = writeError(m.pool, "set metadata of", img, writeRecord(image, encode(m.record)))
	closeImage(image)
	if err == nil {
		err = removeError("move to the trash", ref, rbd.GetImage(m.pool, ref.Name).Trash(wholeSeconds(m.keep)))
	}
	if err == nil || cephconn.MayStillRun(err) {
		// If the move may still be completed, the record must stay: it names who moved the
		// image. As it also names the time, it does not cover a later move by another client.
		return err
	}
	if undoErr := m.undo(img.ID, before); undoErr != nil {
		return fmt.Errorf("%w (and its record could not be written back: %w)", err, undoErr)
	}
	return err
}

// check returns the open image and its record, if it has no holders and is the one seen.
// Partial is its entry in the trash, if an earlier move was interrupted.
func (m trashMove) check(image *rbd.Image) (img rbdutil.Image, before recordText, partial *trashEntry, err error) {
	ref := m.seen.ImageRef
	img, before, err = identify(image, ref)
	if err != nil {
		return img, before, nil, imageError("read", ref, err)
	}
	if !img.Same(m.seen) {
		return img, before, nil, changedError(img, m.seen)
	}
	if err := describe(image, &img); err != nil {
		return img, before, nil, imageError("read", ref, err)
	}
	if err := m.describeHolders(image, &img); err != nil {
		return img, before, nil, err
	}
	if err := rbdutil.CheckFree(img); err != nil || isFormat1(img) {
		return img, before, nil, err
	}
	trashed, err := findTrashed(m.pool, img.ID)
	if trashed != nil {
		partial = &trashEntry{TrashedImage: *trashed, pool: m.pool, ref: ref}
	}
	return img, before, partial, imageError("find in the trash", ref, err)
}

// describeHolders reads the holders of the image, except its snapshots.
func (m trashMove) describeHolders(image *rbd.Image, img *rbdutil.Image) (err error) {
	defer func() { err = imageError("read the holders of", img.ImageRef, err) }()
	var own int
	if img.Watchers, own, err = watchersOf(m.conn, image); err != nil {
		return err
	}
	if own > 1 {
		// Another operation of this process has the image open: it may create a snapshot.
		return rbdutil.ErrInProgress
	}
	if img.Locks, err = locksOf(m.pool, *img); err != nil || isFormat1(*img) {
		return err
	}
	group, err := image.GetGroup()
	if err != nil {
		return err
	}
	img.Group = group.Name
	mirroring, err := image.GetMirrorImageInfo()
	if err != nil {
		return err
	}
	img.Mirrored = mirroring.State != rbd.MirrorImageDisabled
	return nil
}

// removeFormat1 removes an image of format 1, for which Ceph has no trash.
func (m trashMove) removeFormat1() error {
	ref := m.seen.ImageRef
	if m.keep > 0 {
		return fmt.Errorf("%w: %s is of format 1", rbdutil.ErrNoTrash, ref)
	}
	return removeError("remove", ref, rbd.RemoveImage(m.pool, ref.Name))
}

// undo restores the record of the image, unless the image is in the trash in spite of the
// error, if only partly: RemoveFromTrash needs the record there.
func (m trashMove) undo(id string, before recordText) error {
	trashed, err := findTrashed(m.pool, id)
	if err != nil || trashed != nil {
		return err
	}
	image, err := rbd.OpenImageById(m.pool, id, rbd.NoSnapshot)
	if err != nil {
		return err
	}
	defer closeImage(image)
	now, err := readRecord(image)
	if err != nil || now == nil || *now != *encode(m.record) {
		return err
	}
	return writeRecord(image, before)
}

// isFormat1 reports whether an image is of format 1: only those have no id.
func isFormat1(img rbdutil.Image) bool { return img.ID == "" }

// wholeSeconds rounds up to whole seconds, the resolution of Ceph's trash.
func wholeSeconds(d time.Duration) time.Duration {
	return (max(d, 0) + time.Second - 1).Truncate(time.Second)
}
