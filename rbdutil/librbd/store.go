package librbd

import (
	"context"
	"fmt"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/cephconn"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
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
	observe func(operation string) func(error)
	limiter rbdutil.Limiter // nil: no limit
	conns   *cephconn.Connections
	guard   imageGuard
}

var _ rbdutil.Store = (*Store)(nil)

// New returns a Store, which connects on demand.
func New(opts Options) *Store {
	if opts.Observe == nil {
		opts.Observe = func(string) func(error) { return func(error) {} }
	}
	return &Store{observe: opts.Observe, limiter: opts.Limiter, conns: cephconn.New(cephconn.Options{
		Timeout: opts.Timeout, IdleTimeout: opts.IdleTimeout, Changed: opts.ConnectionsChanged,
		Clients: opts.Clients, Blocklisted: opts.Blocklisted,
	})}
}

// Close drops all connections. Those in use are closed when their operations end.
func (s *Store) Close() { s.conns.Close() }

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
	return read(ctx, s, operation{name: "get", image: ref}, c, func(conn *rados.Conn, pool *rados.IOContext) (rbdutil.Image, error) {
		// Open it read-only: an image that is open for writing has a watcher, and then nodes
		// do not map it.
		image, err := rbd.OpenImageReadOnly(pool, ref.Name, rbd.NoSnapshot)
		if err != nil {
			return rbdutil.Image{}, openError(pool, ref, err)
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
		return img, imageError("read", ref, err)
	})
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
	op := operation{name: "list", image: rbdutil.ImageRef{Pool: pool}}
	return read(ctx, s, op, c, func(_ *rados.Conn, ioctx *rados.IOContext) ([]string, error) {
		names, err := rbd.GetImageNames(ioctx)
		return names, errno.Wrap("list pool "+pool, err, nil)
	})
}

// HasChanges implements rbdutil.Store.
//
// Similar to: rbd diff [--from-snap SNAPSHOT] POOL/IMAGE
func (s *Store) HasChanges(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, since string) (bool, error) {
	op := operation{name: "diff", image: ref, lengthy: true}
	return read(ctx, s, op, c, func(_ *rados.Conn, pool *rados.IOContext) (bool, error) {
		image, err := rbd.OpenImageReadOnly(pool, ref.Name, rbd.NoSnapshot)
		if err != nil {
			return false, imageError("open", ref, err)
		}
		defer closeImage(image)
		has, err := hasChanges(image, since)
		return has, imageError("read", ref, err)
	})
}
