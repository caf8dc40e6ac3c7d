package librbd

import (
	"cmp"
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// headerOf returns the name of the RADOS object that every image has.
func headerOf(id string) string { return "rbd_header." + id }

// exists reports whether a RADOS object exists. If that is unknown, it returns true.
func exists(pool *rados.IOContext, object string) bool {
	_, err := pool.Stat(object)
	return !errors.Is(err, rados.ErrNotFound)
}

// idOf returns the id of the image with the name, or "" if there is none.
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

// removePartial removes the name of an image that does not exist. It does not use Ceph's
// removal of images, which moves the image to the trash as well. If that is interrupted
// there, `rbd trash ls` does not list the image, and `rbd ls` lists it twice once the name
// is used again.
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
	if errno.Of(err) == syscall.ENOENT {
		// The pool does not list the image yet, so there is only the name.
		return removeError("remove", ref, rbd.RemoveImage(pool, ref.Name))
	}
	if err != nil {
		return removeError("remove", ref, err)
	}
	if id != "" && exists(pool, headerOf(id)) {
		// The creation has continued since.
		return removeError("restore", ref, cmp.Or(rbd.TrashRestore(pool, id, ref.Name), rbd.ErrExist))
	}
	if id == "" {
		return nil // RemoveFromTrash reads the id from the list
	}
	return removeError("remove", ref, rbd.TrashRemove(pool, id, force))
}
