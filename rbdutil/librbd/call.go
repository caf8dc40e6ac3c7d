package librbd

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// calls remembers which images have a call inside librbd.
type calls struct {
	mu      sync.Mutex
	running map[callKey]struct{}
}

// callKey names an image whoever asks for it: a new key makes it no other image.
type callKey struct {
	monitors string
	image    rbdutil.ImageRef
}

// begin claims the image for one call; end must be called when it has come back. A
// whole pool, which has no name in it, may be looked at by many.
func (c *calls) begin(key callKey) (end func(), ok bool) {
	if key.image.Name == "" {
		return func() {}, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, busy := c.running[key]; busy {
		return nil, false
	}
	if c.running == nil {
		c.running = map[callKey]struct{}{}
	}
	c.running[key] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.running, key)
	}, true
}

// call runs one operation on an image's pool and returns its error, or ErrTimeout
// when ctx is done before the operation is.
func (s *Store) call(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef, fn func(*rados.IOContext) error) error {
	if err := ctx.Err(); err != nil {
		return timeoutError(op, c, ref, err)
	}
	end, ok := s.calls.begin(callKey{keyOf(c).monitors, ref})
	if !ok {
		return fmt.Errorf("%s: %w", what(op, ref), rbdutil.ErrInProgress)
	}
	observed := s.observe(op)
	done := make(chan error, 1)
	go func() {
		err := s.run(c, ref.Pool, fn)
		end()
		observed(err)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return timeoutError(op, c, ref, ctx.Err())
	}
}

// run does the operation on the cluster's shared connection.
func (s *Store) run(c rbdutil.Cluster, pool string, fn func(*rados.IOContext) error) error {
	conn, err := s.conns.acquire(c)
	if err != nil {
		return err
	}
	err = onPool(conn.rados, pool, fn)
	if spoilsConnection(err) {
		s.conns.drop(conn)
	}
	s.conns.release(conn)
	return err
}

func onPool(conn *rados.Conn, pool string, fn func(*rados.IOContext) error) error {
	ioctx, err := conn.OpenIOContext(pool)
	if err != nil {
		return poolError(pool, err)
	}
	defer ioctx.Destroy()
	// Of a full pool, be told so rather than wait for room: what makes room would wait
	// as well.
	if err := ioctx.SetPoolFullTry(); err != nil {
		return poolError(pool, err)
	}
	return fn(ioctx)
}

// spoilsConnection tells whether the next call should start with a new connection:
// after a lost or silent one, because a new one recovers sooner, and after a
// denial, because a connection keeps the capabilities that it was given at first.
func spoilsConnection(err error) bool {
	return errors.Is(err, rbdutil.ErrConnectionLost) ||
		errors.Is(err, rbdutil.ErrTimeout) ||
		errors.Is(err, rbdutil.ErrAccessDenied)
}

func timeoutError(op string, c rbdutil.Cluster, ref rbdutil.ImageRef, cause error) error {
	return fmt.Errorf("%s on %s: %w (%w)", what(op, ref), c, rbdutil.ErrTimeout, cause)
}

// what names an operation for an error. One on a whole pool has no image name.
func what(op string, ref rbdutil.ImageRef) string {
	if ref.Name == "" {
		return op + " pool " + ref.Pool
	}
	return op + " image " + ref.String()
}
