package librbd

import (
	"cmp"
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

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

// removePartial takes a name away that has no image. Not by Ceph's own way of removing
// images: it puts them into the trash as well, and when it is cut short there, they are
// in no list of the trash, and double in that of the pool once the name is given anew.
func removePartial(pool *rados.IOContext, ref rbdutil.ImageRef) error {
	id, err := idOf(pool, ref.Name)
	if err != nil {
		return imageError("read the name of", ref, err)
	}
	if id != "" && exists(pool, headerOf(id)) {
		return fmt.Errorf("remove image %s: %w: the image is complete", ref, rbdutil.ErrImageExists)
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
	if id != "" && exists(pool, headerOf(id)) {
		// Its creation went on meanwhile.
		return removeError("restore", ref, cmp.Or(rbd.TrashRestore(pool, id, ref.Name), rbd.ErrExist))
	}
	if id == "" {
		return nil // RemoveFromTrash finds its id in the list
	}
	return removeError("remove", ref, rbd.TrashRemove(pool, id, force))
}
