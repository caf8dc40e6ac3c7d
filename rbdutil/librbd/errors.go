package librbd

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

func createError(ref rbdutil.ImageRef, layout rbdutil.Layout, err error) error {
	what, missing := "create image "+ref.String(), rbdutil.ErrPoolNotFound
	if layout.DataPool != "" {
		what += " with data pool " + layout.DataPool
		missing = rbdutil.ErrDataPoolNotFound
	}
	return errno.Wrap(what, err, map[syscall.Errno]error{
		syscall.EEXIST: rbdutil.ErrImageExists,
		syscall.ENOENT: missing,
	})
}

func imageError(verb string, ref rbdutil.ImageRef, err error) error {
	return errno.Wrap(verb+" image "+ref.String(), err, map[syscall.Errno]error{
		syscall.ENOENT: rbdutil.ErrImageNotFound,
		// An image with the feature exclusive-lock is read-only while another client has the
		// lock and does not release it.
		syscall.EROFS: rbdutil.ErrLocked,
	})
}

// openError distinguishes a missing image from a missing parent of the image: Ceph returns
// ENOENT for both.
func openError(pool *rados.IOContext, ref rbdutil.ImageRef, err error) error {
	wrapped := imageError("open", ref, err)
	if errors.Is(wrapped, rbdutil.ErrImageNotFound) {
		id, idErr := idOf(pool, ref.Name)
		if idErr != nil {
			return imageError("read the name of", ref, idErr)
		}
		if id != "" && exists(pool, headerOf(id)) {
			return fmt.Errorf("open image %s: the image exists, but its parent does not (%w)", ref, err)
		}
	}
	return wrapped
}

// openTrashedError is openError for an image in the trash.
func openTrashedError(pool *rados.IOContext, ref rbdutil.ImageRef, id string, err error) error {
	if errno.Of(err) == syscall.ENOENT && exists(pool, headerOf(id)) {
		return fmt.Errorf("open image %s: the image exists, but its parent does not (%w)", ref, err)
	}
	return imageError("open", ref, err)
}

func removeError(verb string, ref rbdutil.ImageRef, err error) error {
	return errno.Wrap(verb+" image "+ref.String(), err, map[syscall.Errno]error{
		syscall.ENOENT:    rbdutil.ErrImageNotFound,
		syscall.EBUSY:     rbdutil.ErrImageInUse,
		syscall.ENOTEMPTY: rbdutil.ErrHasSnapshots,
		syscall.EMLINK:    rbdutil.ErrInGroup,
		syscall.ESTALE:    rbdutil.ErrInProgress, // another client continued the removal
	})
}
