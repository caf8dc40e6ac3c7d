package librbd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// calls remembers which images have a call inside librbd.
type calls struct {
	mu sync.Mutex
	// running counts those that only read, of which there may be many; changing is -1.
	running map[callKey]int
}

// changing is how a call counts that changes the image: it is alone with it.
const changing = -1

// callKey names an image, whoever asks for it. The cluster is named by its monitors, until
// there is a connection, and by its id from then on: another list of monitors makes it no
// other image.
type callKey struct {
	cluster string
	image   rbdutil.ImageRef
}

// begin claims the image for one call; end must be called when it has come back. A
// whole pool, which has no name in it, may be looked at by many.
func (c *calls) begin(key callKey, reads bool) (end func(), ok bool) {
	if key.image.Name == "" {
		return func() {}, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.running[key]; now == changing || now > 0 && !reads {
		return nil, false
	}
	if c.running == nil {
		c.running = map[callKey]int{}
	}
	if reads {
		c.running[key]++
	} else {
		c.running[key] = changing
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running[key]--; c.running[key] <= 0 {
			delete(c.running, key)
		}
	}, true
}

// operation is one call on an image.
type operation struct {
	name string
	// image is what it is about: a second call on it has to wait for this one.
	image rbdutil.ImageRef
	// reads: it changes nothing, so that others may read at the same time.
	reads bool
	// lengthy: its duration grows with the size of the image.
	lengthy bool
}

// call runs one operation that changes an image, on its pool.
func (s *Store) call(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef, fn func(*rados.IOContext) error) error {
	return s.do(ctx, operation{name: op, image: ref}, c, func(_ *rados.Conn, pool *rados.IOContext) error { return fn(pool) })
}

// read runs one that changes nothing.
func (s *Store) read(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef, fn func(*rados.IOContext) error) error {
	return s.do(ctx, operation{name: op, image: ref, reads: true}, c, func(_ *rados.Conn, pool *rados.IOContext) error { return fn(pool) })
}

// do runs one operation, on the image's pool and whatever others it opens, unless the limiter
// refuses it. It returns its error, or ErrTimeout when ctx is done before the operation is.
func (s *Store) do(ctx context.Context, op operation, c rbdutil.Cluster, fn func(*rados.Conn, *rados.IOContext) error) error {
	if s.limiter == nil {
		return s.start(ctx, op, c, fn)
	}
	return s.limiter.Run(ctx, c, op.image.Pool, op.lengthy, func() error { return s.start(ctx, op, c, fn) })
}

// start starts one operation, and waits for it until ctx is done.
func (s *Store) start(ctx context.Context, op operation, c rbdutil.Cluster, fn func(*rados.Conn, *rados.IOContext) error) error {
	if err := ctx.Err(); err != nil {
		return timeoutError(op, c, err)
	}
	end, ok := s.calls.begin(callKey{keyOf(c).monitors, op.image}, op.reads)
	if !ok {
		return fmt.Errorf("%s: %w", op, rbdutil.ErrInProgress)
	}
	observed := s.observe(op.name)
	done := make(chan error, 1)
	go func() {
		err := s.run(context.WithoutCancel(ctx), op, c, fn)
		end()
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

// run does the operation on the cluster's shared connection, unless another is under way on
// the image by other monitors.
func (s *Store) run(ctx context.Context, op operation, c rbdutil.Cluster, fn func(*rados.Conn, *rados.IOContext) error) error {
	conn, err := s.conns.acquire(ctx, c)
	if err != nil {
		return err
	}
	end, ok := s.calls.begin(callKey{conn.fsid, op.image}, op.reads)
	if !ok {
		s.conns.release(conn)
		return fmt.Errorf("%s: %w", op, rbdutil.ErrInProgress)
	}
	err = onPool(conn.rados, op.image.Pool, func(ioctx *rados.IOContext) error {
		return checkBlocklisted(ioctx, fn(conn.rados, ioctx))
	})
	end()
	if spoilsConnection(err) {
		// A connection that was dropped before may have been fenced by the next leader, after a clean stop.
		before := s.conns.spoil(conn, leavesRequests(err))
		if errors.Is(err, rbdutil.ErrBlocklisted) && !before {
			s.blocklisted(fmt.Errorf("%s as client %s: %w", c, conn.client.Address, err))
		}
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

// checkBlocklisted returns ErrBlocklisted in place of an error that hides it: librbd turns it into
// EINVAL or EBUSY in some places. Errors that are frequent or mean a silent Ceph cost no request.
func checkBlocklisted(pool *rados.IOContext, err error) error {
	switch errnoOf(err) {
	case 0, syscall.ENOENT, syscall.EEXIST, syscall.ESHUTDOWN, syscall.ETIMEDOUT, syscall.ENOTCONN:
		return err
	default:
		const anyObject = "rbd_directory"
		if _, statErr := pool.Stat(anyObject); errnoOf(statErr) != syscall.ESHUTDOWN {
			return err
		}
		// Not %w: the other error has another meaning.
		return fmt.Errorf("%w: %s", rbdutil.ErrBlocklisted, err.Error())
	}
}

// spoilsConnection tells whether the next call should start with a new connection:
// after a lost or silent one, because a new one recovers sooner, and after a
// denial, because a connection keeps the capabilities that it was given at first.
func spoilsConnection(err error) bool {
	return leavesRequests(err) ||
		errors.Is(err, rbdutil.ErrBlocklisted) ||
		errors.Is(err, rbdutil.ErrAccessDenied)
}

// leavesRequests reports whether Ceph may still do what it has not answered.
func leavesRequests(err error) bool {
	return errors.Is(err, rbdutil.ErrConnectionLost) || errors.Is(err, rbdutil.ErrTimeout)
}

func timeoutError(op operation, c rbdutil.Cluster, cause error) error {
	return fmt.Errorf("%s on %s: %w (%w)", op, c, rbdutil.ErrTimeout, cause)
}

// String names an operation for an error. One on a whole pool has no image name.
func (op operation) String() string {
	if op.image.Name == "" {
		return op.name + " pool " + op.image.Pool
	}
	return op.name + " image " + op.image.String()
}
