package librbd

import (
	"context"
	"fmt"
	"strings"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// operation is one method call of the Store.
type operation struct {
	name string
	// image is locked for the duration of the operation.
	image rbdutil.ImageRef
	// reads: it changes nothing, so others may read at the same time.
	reads bool
	// lengthy: its duration grows with the size of the image.
	lengthy bool
}

// write runs an operation that changes an image, on the pool of the image.
func (s *Store) write(ctx context.Context, name string, c rbdutil.Cluster, ref rbdutil.ImageRef, fn func(*rados.IOContext) error) error {
	return s.do(ctx, operation{name: name, image: ref}, c, func(_ *rados.Conn, pool *rados.IOContext) error { return fn(pool) })
}

// read runs an operation that returns a value. The value is sent over a channel, as read may
// return before the operation ends.
func read[T any](ctx context.Context, s *Store, op operation, c rbdutil.Cluster, fn func(*rados.Conn, *rados.IOContext) (T, error)) (T, error) {
	op.reads = true
	result := make(chan T, 1)
	err := s.do(ctx, op, c, func(conn *rados.Conn, pool *rados.IOContext) error {
		value, err := fn(conn, pool)
		result <- value
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return <-result, nil
}

// do runs an operation, unless the limiter refuses it. It returns the operation's error, or
// ErrTimeout if ctx is done before.
func (s *Store) do(ctx context.Context, op operation, c rbdutil.Cluster, fn func(*rados.Conn, *rados.IOContext) error) error {
	if s.limiter == nil {
		return s.start(ctx, op, c, fn)
	}
	return s.limiter.Run(ctx, c, op.image.Pool, op.lengthy, func() error { return s.start(ctx, op, c, fn) })
}

// start starts an operation in the background and waits for it until ctx is done.
func (s *Store) start(ctx context.Context, op operation, c rbdutil.Cluster, fn func(*rados.Conn, *rados.IOContext) error) error {
	if err := ctx.Err(); err != nil {
		return timeoutError(op, c, err)
	}
	unlock, ok := s.guard.tryLock(guardKey{strings.Join(c.Monitors, ","), op.image}, op.reads)
	if !ok {
		return fmt.Errorf("%s: %w", op, rbdutil.ErrInProgress)
	}
	observed := s.observe(op.name)
	done := make(chan error, 1)
	go func() {
		err := s.run(context.WithoutCancel(ctx), op, c, fn)
		unlock()
		observed(err)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return timeoutError(op, c, ctx.Err())
	}
}

// run runs an operation on the shared connection of the cluster, unless another one runs on
// the image that was started with other monitors.
func (s *Store) run(ctx context.Context, op operation, c rbdutil.Cluster, fn func(*rados.Conn, *rados.IOContext) error) error {
	conn, err := s.conns.Acquire(ctx, c)
	if err != nil {
		return err
	}
	unlock, ok := s.guard.tryLock(guardKey{conn.FSID(), op.image}, op.reads)
	if !ok {
		s.conns.Release(conn, nil)
		return fmt.Errorf("%s: %w", op, rbdutil.ErrInProgress)
	}
	err = conn.Run(op.image.Pool, fn)
	unlock()
	s.conns.Release(conn, err)
	return err
}

// withLock runs a part of an operation that has to exclude others of the same key. It returns
// ErrInProgress for what while another one runs.
func (s *Store) withLock(conn *rados.Conn, key rbdutil.ImageRef, what string, part func() error) error {
	fsid, err := conn.GetFSID()
	if err != nil {
		return errno.Wrap("read the id of the cluster", err, nil)
	}
	unlock, ok := s.guard.tryLock(guardKey{fsid, key}, false)
	if !ok {
		return fmt.Errorf("%s: %w", what, rbdutil.ErrInProgress)
	}
	defer unlock()
	return part()
}

func timeoutError(op operation, c rbdutil.Cluster, cause error) error {
	return fmt.Errorf("%s on %s: %w (%w)", op, c, rbdutil.ErrTimeout, cause)
}

// String describes the operation in an error. An operation on a whole pool has no image name.
func (op operation) String() string {
	if op.image.Name == "" {
		return op.name + " pool " + op.image.Pool
	}
	return op.name + " image " + op.image.String()
}
