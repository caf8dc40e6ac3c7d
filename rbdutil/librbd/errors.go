package librbd

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// errnoOf returns Ceph's errno. go-ceph compares errors by errno alone, so errors.Is cannot
// distinguish a missing pool from a missing image. The callers here know which call returned
// the errno.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	var coded interface{ ErrorCode() int }
	if !errors.As(err, &coded) {
		return 0
	}
	return syscall.Errno(max(coded.ErrorCode(), -coded.ErrorCode()))
}

// sentinelOf returns the error for an errno. Some errnos have the same meaning in every
// call. The caller gives the meaning of others, as it depends on the call.
func sentinelOf(err error, special map[syscall.Errno]error) error {
	errno := errnoOf(err)
	if sentinel, ok := special[errno]; ok {
		return sentinel
	}
	switch errno {
	case syscall.EPERM, syscall.EACCES:
		return rbdutil.ErrAccessDenied
	case syscall.ETIMEDOUT:
		return rbdutil.ErrTimeout
	case syscall.ESHUTDOWN:
		return rbdutil.ErrBlocklisted
	case syscall.ENOTCONN, syscall.ECONNREFUSED, syscall.ECONNRESET,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH:
		return rbdutil.ErrConnectionLost
	case syscall.ENOSPC, syscall.EDQUOT:
		return rbdutil.ErrNoSpace
	case syscall.EINVAL, syscall.EDOM, syscall.ERANGE, syscall.E2BIG, syscall.EFBIG:
		return rbdutil.ErrInvalid
	default:
		return nil
	}
}

// wrap adds what was done, and the rbdutil error that the errno means.
func wrap(what string, err error, special map[syscall.Errno]error) error {
	if err == nil {
		return nil
	}
	if sentinel := sentinelOf(err, special); sentinel != nil {
		return fmt.Errorf("%s: %w (%w)", what, sentinel, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func connectError(c rbdutil.Cluster, err error) error {
	return wrap("connect to "+c.String(), err, map[syscall.Errno]error{
		syscall.ETIMEDOUT: rbdutil.ErrUnreachable, syscall.ENOTCONN: rbdutil.ErrUnreachable,
		syscall.ECONNREFUSED: rbdutil.ErrUnreachable, syscall.EHOSTUNREACH: rbdutil.ErrUnreachable,
		syscall.ENETUNREACH: rbdutil.ErrUnreachable,
		// The key was checked before, so the monitors are invalid.
		syscall.ENOENT: rbdutil.ErrUnknownMonitor,
		syscall.EINVAL: rbdutil.ErrUnknownMonitor,
	})
}

func poolError(pool string, err error) error {
	return wrap("open pool "+pool, err, map[syscall.Errno]error{
		syscall.ENOENT: rbdutil.ErrPoolNotFound,
	})
}

func createError(ref rbdutil.ImageRef, layout rbdutil.Layout, err error) error {
	what, missing := "create image "+ref.String(), rbdutil.ErrPoolNotFound
	if layout.DataPool != "" {
		what += " with data pool " + layout.DataPool
		missing = rbdutil.ErrDataPoolNotFound
	}
	return wrap(what, err, map[syscall.Errno]error{
		syscall.EEXIST: rbdutil.ErrImageExists,
		syscall.ENOENT: missing,
	})
}

func imageError(verb string, ref rbdutil.ImageRef, err error) error {
	return wrap(verb+" image "+ref.String(), err, map[syscall.Errno]error{
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
	if errnoOf(err) == syscall.ENOENT && exists(pool, headerOf(id)) {
		return fmt.Errorf("open image %s: the image exists, but its parent does not (%w)", ref, err)
	}
	return imageError("open", ref, err)
}

func removeError(verb string, ref rbdutil.ImageRef, err error) error {
	return wrap(verb+" image "+ref.String(), err, map[syscall.Errno]error{
		syscall.ENOENT:    rbdutil.ErrImageNotFound,
		syscall.EBUSY:     rbdutil.ErrImageInUse,
		syscall.ENOTEMPTY: rbdutil.ErrHasSnapshots,
		syscall.EMLINK:    rbdutil.ErrInGroup,
		syscall.ESTALE:    rbdutil.ErrInProgress, // another client continued the removal
	})
}
