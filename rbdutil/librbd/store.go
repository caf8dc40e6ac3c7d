package librbd

import (
	"context"
	"fmt"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Options of a Store.
type Options struct {
	// Timeout bounds the connection and each request of librados. The minimum is one second, as
	// Ceph counts in seconds.
	Timeout time.Duration
	// IdleTimeout is how long an unused connection is kept.
	IdleTimeout time.Duration
	// Observe, if set, is called when an operation starts, and its result when the operation
	// has ended in Ceph, even if the caller returned long before.
	Observe func(operation string) func(error)
	// ConnectionsChanged, if set, is called with each new number of connections.
	ConnectionsChanged func(n int)
	// Clients, if set, records each connection before its use, and returns those to fence.
	Clients rbdutil.Clients
	// Limiter, if set, runs each operation, or refuses it.
	Limiter rbdutil.Limiter
	// Blocklisted, if set, is called when Ceph refuses all requests of this process: then
	// another process changes images.
	Blocklisted func(error)
}

// Store is the rbdutil.Store over any number of Ceph clusters. Operations with the same
// Cluster share one connection.
type Store struct {
	observe     func(operation string) func(error)
	limiter     rbdutil.Limiter // nil: no limit
	blocklisted func(error)
	conns       *connections
	guard       imageGuard
}

var _ rbdutil.Store = (*Store)(nil)

// New returns a Store, which connects on demand.
func New(opts Options) *Store {
	if opts.Observe == nil {
		opts.Observe = func(string) func(error) { return func(error) {} }
	}
	if opts.Blocklisted == nil {
		opts.Blocklisted = func(error) {}
	}
	return &Store{observe: opts.Observe, limiter: opts.Limiter, blocklisted: opts.Blocklisted, conns: newConnections(opts)}
}

// Close drops all connections. Those in use are closed when their operations end.
func (s *Store) Close() { s.conns.dropAll() }

// Create implements rbdutil.Store.
//
// Similar to: rbd create --size 0 --image-format 2 --image-feature F --object-size N
// --stripe-unit N --stripe-count 1 [--data-pool P] POOL/IMAGE
func (s *Store) Create(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, layout rbdutil.Layout) error {
	return s.write(ctx, "create", c, ref, func(pool *rados.IOContext) error {
		opts := rbd.NewRbdImageOptions()
		defer opts.Destroy()
		if err := setLayout(opts, layout); err != nil {
			return fmt.Errorf("options of image %s: %w", ref, err)
		}
		if err := rbd.CreateImage(pool, ref.Name, 0, opts); err != nil {
			return createError(ref, layout, err)
		}
		return nil
	})
}

// Get implements rbdutil.Store.
//
// Similar to: rbd info, rbd status, rbd snap ls, rbd image-meta get
func (s *Store) Get(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) (rbdutil.Image, error) {
	// The result is sent over a channel, as this function may return before the operation
	// ends.
	result := make(chan rbdutil.Image, 1)
	err := s.do(ctx, operation{name: "get", image: ref, reads: true}, c, func(conn *rados.Conn, pool *rados.IOContext) error {
		// Open it read-only: an image that is open for writing has a watcher, and then nodes
		// do not map it.
		image, err := rbd.OpenImageReadOnly(pool, ref.Name, rbd.NoSnapshot)
		if err != nil {
			return openError(pool, ref, err)
		}
		defer closeImage(image)
		img, _, err := identify(image, ref)
		if err == nil {
			err = describe(image, &img)
		}
		if err == nil {
			// This client's own watchers do not block others: they close soon.
			img.Watchers, _, err = watchersOf(conn, image)
		}
		if err != nil {
			return imageError("read", ref, err)
		}
		result <- img
		return nil
	})
	if err != nil {
		return rbdutil.Image{}, err
	}
	return <-result, nil
}

// Update implements rbdutil.Store.
//
// Similar to: rbd image-meta set POOL/IMAGE KEY VALUE; rbd resize --size N POOL/IMAGE
func (s *Store) Update(ctx context.Context, c rbdutil.Cluster, seen rbdutil.Image, record *rbdutil.Record, size uint64) error {
	return s.write(ctx, "update", c, seen.ImageRef, func(pool *rados.IOContext) error { return update(pool, seen, record, size) })
}

// RemovePartial implements rbdutil.Store.
//
// Similar to: rbd rm POOL/IMAGE
func (s *Store) RemovePartial(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) error {
	return s.write(ctx, "remove", c, ref, func(pool *rados.IOContext) error { return removePartial(pool, ref) })
}

// List implements rbdutil.Store.
//
// Similar to: rbd ls POOL
func (s *Store) List(ctx context.Context, c rbdutil.Cluster, pool string) ([]string, error) {
	result := make(chan []string, 1)
	err := s.read(ctx, "list", c, rbdutil.ImageRef{Pool: pool}, func(ioctx *rados.IOContext) error {
		names, err := rbd.GetImageNames(ioctx)
		if err != nil {
			return wrap("list pool "+pool, err, nil)
		}
		result <- names
		return nil
	})
	if err != nil {
		return nil, err
	}
	return <-result, nil
}

// HasChanges implements rbdutil.Store.
//
// Similar to: rbd diff [--from-snap SNAPSHOT] POOL/IMAGE
func (s *Store) HasChanges(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, since string) (bool, error) {
	result := make(chan bool, 1)
	op := operation{name: "diff", image: ref, reads: true, lengthy: true}
	err := s.do(ctx, op, c, func(_ *rados.Conn, pool *rados.IOContext) error {
		image, err := rbd.OpenImageReadOnly(pool, ref.Name, rbd.NoSnapshot)
		if err != nil {
			return imageError("open", ref, err)
		}
		defer closeImage(image)
		has, err := hasChanges(image, since)
		if err != nil {
			return imageError("read", ref, err)
		}
		result <- has
		return nil
	})
	if err != nil {
		return false, err
	}
	return <-result, nil
}
