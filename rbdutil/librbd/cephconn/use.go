package cephconn

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// FSID returns the id of the cluster.
func (c *Connection) FSID() string { return c.fsid }

// Run runs an operation on a pool. Its error is ErrBlocklisted if that is the cause.
func (c *Connection) Run(pool string, fn func(*rados.Conn, *rados.IOContext) error) error {
	return OnPool(c.rados, pool, func(ioctx *rados.IOContext) error {
		return checkBlocklisted(ioctx, fn(c.rados, ioctx))
	})
}

// Release ends the use of a connection by an operation that returned err, or nil. It drops the
// connection if the next operation must use a new one.
func (p *Connections) Release(conn *Connection, err error) {
	if breaksConnection(err) {
		// If the connection was dropped before, the next leader may have fenced it after a
		// clean stop: that is no reason to exit.
		before := p.markBroken(conn, MayStillRun(err))
		if errors.Is(err, rbdutil.ErrBlocklisted) && !before {
			p.blocklisted(fmt.Errorf("%s as client %s: %w", conn.cluster, conn.client.Address, err))
		}
	}
	p.release(conn)
}

// OnPool runs a function with a pool of the cluster.
func OnPool(conn *rados.Conn, pool string, fn func(*rados.IOContext) error) error {
	ioctx, err := conn.OpenIOContext(pool)
	if err != nil {
		return poolError(pool, err)
	}
	defer ioctx.Destroy()
	// A request to a full pool must fail, not wait for space: the requests that free space
	// would wait as well.
	if err := ioctx.SetPoolFullTry(); err != nil {
		return poolError(pool, err)
	}
	return fn(ioctx)
}

// checkBlocklisted returns ErrBlocklisted if the cause of the error is that this client is
// blocklisted: in some places librbd returns EINVAL or EBUSY then. It sends no request to
// Ceph for errors that are frequent or mean that Ceph does not answer.
func checkBlocklisted(pool *rados.IOContext, err error) error {
	switch errno.Of(err) {
	case 0, syscall.ENOENT, syscall.EEXIST, syscall.ESHUTDOWN, syscall.ETIMEDOUT, syscall.ENOTCONN:
		return err
	default:
		const anyObject = "rbd_directory"
		if _, statErr := pool.Stat(anyObject); errno.Of(statErr) != syscall.ESHUTDOWN {
			return err
		}
		// Not %w: the other error has another meaning.
		return fmt.Errorf("%w: %s", rbdutil.ErrBlocklisted, err.Error())
	}
}

// breaksConnection reports whether the next operation must use a new connection. A new one
// recovers faster than one that was lost or gets no answers. After a denial, the
// connection would keep the capabilities that it had when it was made.
func breaksConnection(err error) bool {
	return MayStillRun(err) ||
		errors.Is(err, rbdutil.ErrBlocklisted) ||
		errors.Is(err, rbdutil.ErrAccessDenied)
}

// MayStillRun reports whether Ceph may still complete the operation in spite of the error.
func MayStillRun(err error) bool {
	return errors.Is(err, rbdutil.ErrConnectionLost) || errors.Is(err, rbdutil.ErrTimeout)
}
