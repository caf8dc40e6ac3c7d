package librbd

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// moveToTrash does what Ceph's own command leaves out: it looks who holds the image. Who
// comes to hold it a moment later keeps it for as long as he does, since Ceph removes
// nothing from the trash that somebody holds.
func moveToTrash(pool *rados.IOContext, ref rbdutil.ImageRef, mark rbdutil.Mark) error {
	format1, err := checkFree(pool, ref)
	if err != nil {
		return err
	}
	if format1 {
		// Ceph has no trash for it.
		return removeError("remove", ref, rbd.RemoveImage(pool, ref.Name))
	}
	if err := setMark(pool, ref, mark); err != nil {
		return err
	}
	const noDelay = 0
	if err := rbd.GetImage(pool, ref.Name).Trash(noDelay); err != nil {
		return removeError("move to the trash", ref, err)
	}
	return nil
}

// checkFree wants nobody to hold the image, and tells whether it is one of format 1.
func checkFree(pool *rados.IOContext, ref rbdutil.ImageRef) (format1 bool, err error) {
	image, err := rbd.OpenImageReadOnly(pool, ref.Name, rbd.NoSnapshot)
	if err != nil {
		return false, openError(pool, ref, err)
	}
	defer closeImage(image)
	watchers, err := image.ListWatchers()
	if err != nil {
		return false, imageError("read", ref, err)
	}
	if len(watchers) > 0 {
		return false, fmt.Errorf("%w: %s is mapped or open at %s", rbdutil.ErrImageInUse, ref, watchers[0].Addr)
	}
	if format1, err = image.IsOldFormat(); err != nil || format1 {
		return format1, imageError("read", ref, err)
	}
	group, err := image.GetGroup()
	if err != nil {
		return false, imageError("read", ref, err)
	}
	if group.Name != "" {
		return false, fmt.Errorf("%w: %s is in group %s", rbdutil.ErrInGroup, ref, group.Name)
	}
	return false, nil
}

// setMark says on an image who puts it into the trash.
func setMark(pool *rados.IOContext, ref rbdutil.ImageRef, mark rbdutil.Mark) error {
	image, err := rbd.OpenImage(pool, ref.Name, rbd.NoSnapshot)
	if err != nil {
		return imageError("open", ref, err)
	}
	defer closeImage(image)
	return imageError("set metadata of", ref, image.SetMetadata(rbdutil.MetaDeletedBy, mark.At(time.Now())))
}

// remains are what an image in the trash has to do with others.
type remains struct {
	// snapshots are those that we took for clones of it.
	snapshots []string
	// parent is the snapshot that it is a clone of itself, or nil.
	parent *rbdutil.SnapshotRef
}

// checkMark wants the mark on an image in the trash. One whose removal was cut short
// may have nothing left that could bear it, and nothing that could be lost.
func checkMark(pool *rados.IOContext, ref rbdutil.ImageRef, trashed rbdutil.TrashedImage, want rbdutil.Mark) (remains, error) {
	image, err := rbd.OpenImageByIdReadOnly(pool, trashed.ID, rbd.NoSnapshot)
	if err != nil {
		err = imageError("open", ref, err)
		if errors.Is(err, rbdutil.ErrImageNotFound) && !exists(pool, headerOf(trashed.ID)) {
			return remains{}, nil
		}
		return remains{}, err
	}
	defer closeImage(image)
	// A missing key and a missing image are the same ENOENT; it is open, though.
	got, err := image.GetMetadata(rbdutil.MetaDeletedBy)
	if err = imageError("read metadata of", ref, err); err != nil && !errors.Is(err, rbdutil.ErrImageNotFound) {
		return remains{}, err
	}
	if !want.Covers(got, trashed.Trashed) {
		return remains{}, fmt.Errorf("%w: image %s was put into the trash by %q", rbdutil.ErrNotOurs, ref, got)
	}
	snapshots, err := snapshotsOf(image)
	if err != nil {
		return remains{}, imageError("read", ref, err)
	}
	var left remains
	for _, s := range snapshots {
		if _, ours := rbdutil.CloneOf(s.name); ours {
			left.snapshots = append(left.snapshots, s.name)
		}
	}
	left.parent, err = parentOf(image)
	return left, imageError("read", ref, err)
}

// purge removes an image from the trash for good.
func purge(pool *rados.IOContext, ref rbdutil.ImageRef, trashed rbdutil.TrashedImage) error {
	const force = false // not before its time
	err := rbd.TrashRemove(pool, trashed.ID, force)
	if errnoOf(err) == syscall.EUCLEAN {
		// It was cut short on its way into the trash.
		if err := finishMove(pool, ref, trashed); err != nil {
			return err
		}
		err = rbd.TrashRemove(pool, trashed.ID, force)
	}
	if err != nil {
		return removeError("purge", ref, err)
	}
	return nil
}

// finishMove moves an image into the trash that is half there. Ceph finds it by the name
// that it had, if no other has that by now.
func finishMove(pool *rados.IOContext, ref rbdutil.ImageRef, trashed rbdutil.TrashedImage) error {
	other, err := idOf(pool, trashed.Name)
	if err != nil {
		return imageError("read the name of", ref, err)
	}
	if other != "" && other != trashed.ID {
		return fmt.Errorf("purge image %s: %w: its name %s has been given to another", ref, rbdutil.ErrImageExists, trashed.Name)
	}
	const noDelay = 0
	if err := rbd.GetImage(pool, trashed.Name).Trash(noDelay); err != nil {
		return removeError("move to the trash", ref, err)
	}
	return nil
}

// headerOf is the RADOS object without which there is no image.
func headerOf(id string) string { return "rbd_header." + id }

// exists tells whether there is a RADOS object. When in doubt, there is.
func exists(pool *rados.IOContext, object string) bool {
	_, err := pool.Stat(object)
	return !errors.Is(err, rados.ErrNotFound)
}

// idOf returns the id of the image that has the name, or nothing if none has.
func idOf(pool *rados.IOContext, name string) (string, error) {
	const lengthPrefix = 4
	data := make([]byte, 1024) // Ceph's ids are a few dozen characters long
	n, err := pool.Read("rbd_id."+name, data, 0)
	if errors.Is(err, rados.ErrNotFound) {
		return "", nil
	}
	if err != nil || n <= lengthPrefix {
		return "", err
	}
	return string(data[lengthPrefix:n]), nil
}

// removeRemains takes a name away that has no image. Not by Ceph's own way of removing
// images: it puts them into the trash as well, and when it is cut short there, they are
// in no list of the trash, and double in that of the pool once the name is given anew.
func removeRemains(pool *rados.IOContext, ref rbdutil.ImageRef) error {
	id, err := idOf(pool, ref.Name)
	if err != nil {
		return imageError("read the name of", ref, err)
	}
	if id != "" && exists(pool, headerOf(id)) {
		return fmt.Errorf("remove image %s: %w: it is whole", ref, rbdutil.ErrImageExists)
	}
	const noDelay, force = 0, false
	err = rbd.GetImage(pool, ref.Name).Trash(noDelay)
	if errnoOf(err) == syscall.ENOENT {
		// The pool does not list it yet, so that there is nothing but the name.
		return removeError("remove", ref, rbd.RemoveImage(pool, ref.Name))
	}
	if err != nil {
		return removeError("remove", ref, err)
	}
	if id == "" {
		return nil // it is for Purge, who knows its id
	}
	return removeError("remove", ref, rbd.TrashRemove(pool, id, force))
}
