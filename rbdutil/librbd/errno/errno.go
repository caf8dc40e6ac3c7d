// Package errno gives Ceph's errnos their meaning: an error of rbdutil. It has what is the same
// in every call. Each caller adds the errnos whose meaning depends on the call.
package errno

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Of returns Ceph's errno. go-ceph compares errors by errno alone, so errors.Is cannot
// distinguish a missing pool from a missing image. The callers here know which call returned
// the errno.
func Of(err error) syscall.Errno {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
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
	number := Of(err)
	if sentinel, ok := special[number]; ok {
		return sentinel
	}
	switch number {
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

// Wrap adds what was done, and the rbdutil error that the errno means.
func Wrap(what string, err error, special map[syscall.Errno]error) error {
	if err == nil {
		return nil
	}
	if sentinel := sentinelOf(err, special); sentinel != nil {
		return fmt.Errorf("%s: %w (%w)", what, sentinel, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
