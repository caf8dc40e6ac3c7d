package librbd

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// errnoOf returns Ceph's errno. go-ceph's errors compare by errno alone, so that
// errors.Is cannot tell a missing pool from a missing image; here the errno is
// read with the knowledge of which call it came from.
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

// sentinelOf maps the errnos that mean the same in every call. The others are
// given by the caller, who knows what was missing or in the way.
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

// wrap says what was being done and which of the sentinels it failed with.
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
		// The key has been checked by then, so it is the monitors that are invalid.
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
		// An image with the feature exclusive-lock is read-only while another client holds
		// the lock and does not hand it over.
		syscall.EROFS: rbdutil.ErrLocked,
	})
}

// openError tells an image that is not there from one that is, but lacks what it is a
// clone of: to both of them Ceph says ENOENT.
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
		syscall.ESTALE:    rbdutil.ErrInProgress, // somebody else has gone on with it
	})
}
