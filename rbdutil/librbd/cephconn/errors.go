package cephconn

import (
	"syscall"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

func connectError(c rbdutil.Cluster, err error) error {
	return errno.Wrap("connect to "+c.String(), err, map[syscall.Errno]error{
		syscall.ETIMEDOUT: rbdutil.ErrUnreachable, syscall.ENOTCONN: rbdutil.ErrUnreachable,
		syscall.ECONNREFUSED: rbdutil.ErrUnreachable, syscall.EHOSTUNREACH: rbdutil.ErrUnreachable,
		syscall.ENETUNREACH: rbdutil.ErrUnreachable,
		// The key was checked before, so the monitors are invalid.
		syscall.ENOENT: rbdutil.ErrUnknownMonitor,
		syscall.EINVAL: rbdutil.ErrUnknownMonitor,
	})
}

func poolError(pool string, err error) error {
	return errno.Wrap("open pool "+pool, err, map[syscall.Errno]error{
		syscall.ENOENT: rbdutil.ErrPoolNotFound,
	})
}
