// Package rbdfake is a Ceph cluster in memory, for unit tests. It fulfils the contract of
// rbdutil/rbdtest, as Ceph does, and returns errors on demand.
package rbdfake

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Features that cannot be requested (include/rbd/features.h).
const (
	dataPool  rbdutil.Features = 1 << 7
	migrating rbdutil.Features = 1 << 9
)

// The names of operations, as hooks get them.
const (
	OpCreate          = "create"
	OpGet             = "get"
	OpUpdate          = "update"
	OpRemovePartial   = "remove-partial"
	OpList            = "list"
	OpHasChanges      = "has-changes"
	OpMoveToTrash     = "move-to-trash"
	OpListTrash       = "list-trash"
	OpGetTrashed      = "get-trashed"
	OpRemoveFromTrash = "remove-from-trash"
	OpRestore         = "restore"
	OpCreateSnapshot  = "create-snapshot"
	OpRemoveSnapshot  = "remove-snapshot"
	OpClone           = "clone"
	OpCloneDepth      = "clone-depth"
	OpFlatten         = "flatten"
)

// Ceph is an rbdutil.Store in memory. Its zero value has no pools; use New.
type Ceph struct {
	// Before, if set, runs before an operation. If it returns an error, the operation fails
	// with it and has no effect.
	Before func(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef) error
	// After, if set, runs after the effect of an operation. If it returns an error, the
	// operation fails with it in spite of its effect, as if the answer was lost.
	After func(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef) error
	// Limiter, if set, runs each operation with its hooks, or refuses it.
	Limiter rbdutil.Limiter
	// Now is the clock for the times in the trash; time.Now if it is not set.
	Now func() time.Time

	mu     sync.Mutex
	pools  map[string]bool
	images map[rbdutil.ImageRef]*image
	trash  map[rbdutil.ImageRef]*image // by pool and id
	ids    int
}

type image struct {
	rbdutil.Image
	written bool
	// trashed and keepUntil are set while it is in the trash.
	trashed, keepUntil time.Time
	// migrationSource: the image is in the trash as the source of a migration.
	migrationSource bool
	// snapshots are those of CreateSnapshot.
	snapshots map[string]*snapshot
	// partial: there is only the name, as after an interrupted creation or removal.
	partial bool
}

// snapshot is the state of an image at its creation.
type snapshot struct {
	size uint64
	// overwritten: the image was written to since then.
	overwritten bool
}

// New returns a cluster with the pools.
func New(pools ...string) *Ceph {
	f := &Ceph{pools: map[string]bool{}, images: map[rbdutil.ImageRef]*image{}, trash: map[rbdutil.ImageRef]*image{}}
	for _, p := range pools {
		f.pools[p] = true
	}
	return f
}

var _ rbdutil.Store = (*Ceph)(nil)

// Create implements rbdutil.Store.
func (f *Ceph) Create(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, layout rbdutil.Layout) error {
	return f.do(ctx, OpCreate, c, ref, func() error {
		if f.images[ref] != nil {
			return fmt.Errorf("create image %s: %w", ref, rbdutil.ErrImageExists)
		}
		features, err := f.featuresOf(layout)
		if err != nil {
			return fmt.Errorf("create image %s: %w", ref, err)
		}
		objectSize := layout.ObjectSize
		if objectSize == 0 {
			objectSize = rbdutil.DefaultObjectSize
		}
		f.images[ref] = &image{Image: rbdutil.Image{
			ImageRef: ref, ID: f.newID(), Features: features, ObjectSize: objectSize,
		}}
		return nil
	})
}

// featuresOf returns the features that an image of the layout has.
func (f *Ceph) featuresOf(layout rbdutil.Layout) (rbdutil.Features, error) {
	switch {
	case layout.DataPool == "":
		return layout.Features, nil
	case !f.pools[layout.DataPool]:
		return 0, fmt.Errorf("%w: %s", rbdutil.ErrDataPoolNotFound, layout.DataPool)
	default:
		return layout.Features | dataPool, nil
	}
}

// Get implements rbdutil.Store.
func (f *Ceph) Get(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) (rbdutil.Image, error) {
	var got rbdutil.Image
	err := f.do(ctx, OpGet, c, ref, func() error {
		img, err := f.find(ref)
		if err != nil {
			return err
		}
		got = f.describe(img)
		// These are read only before the image is deleted.
		got.Locks, got.Group, got.Mirrored = nil, "", false
		return nil
	})
	return got, err
}

// describe returns a copy of an image. It has clones only if the image has snapshots that are
// not ours.
func (f *Ceph) describe(img *image) rbdutil.Image {
	got := img.Image
	got.Watchers = slices.Clone(img.Watchers)
	got.Snapshots = slices.Clone(img.Snapshots)
	got.Clones = slices.Clone(img.Clones)
	got.Locks = slices.Clone(img.Locks)
	if !slices.ContainsFunc(img.Snapshots, func(name string) bool { return img.snapshots[name] == nil }) {
		return got
	}
	for _, name := range img.Snapshots {
		got.Clones = append(got.Clones, f.clonesOf(rbdutil.SnapshotRef{Pool: img.Pool, ImageID: img.ID, Name: name})...)
	}
	return got
}

// Update implements rbdutil.Store.
func (f *Ceph) Update(ctx context.Context, c rbdutil.Cluster, seen rbdutil.Image, record *rbdutil.Record, size uint64) error {
	ref := seen.ImageRef
	return f.do(ctx, OpUpdate, c, ref, func() error {
		img, err := f.find(ref)
		switch {
		case err != nil:
			return err
		case !img.Same(seen):
			return fmt.Errorf("update image %s: %w", ref, rbdutil.ErrChanged)
		case size < img.Size:
			return fmt.Errorf("resize image %s: %w: the size cannot be reduced", ref, rbdutil.ErrInvalid)
		case size > img.Size && len(img.Locks) > 0:
			return fmt.Errorf("resize image %s: %w by %s", ref, rbdutil.ErrLocked, img.Locks[0])
		}
		if record != nil {
			img.Record, img.RecordError = *record, nil
			img.Record.ImageID = img.ID
		}
		img.Size = size
		return nil
	})
}

// RemovePartial implements rbdutil.Store.
func (f *Ceph) RemovePartial(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) error {
	return f.do(ctx, OpRemovePartial, c, ref, func() error {
		img := f.images[ref]
		switch {
		case img == nil:
			return fmt.Errorf("remove image %s: %w", ref, rbdutil.ErrImageNotFound)
		case !img.partial:
			return fmt.Errorf("remove image %s: %w", ref, rbdutil.ErrImageExists)
		}
		delete(f.images, ref)
		return nil
	})
}

// List implements rbdutil.Store.
func (f *Ceph) List(ctx context.Context, c rbdutil.Cluster, pool string) ([]string, error) {
	var names []string
	err := f.do(ctx, OpList, c, rbdutil.ImageRef{Pool: pool}, func() error {
		for ref := range f.images {
			if ref.Pool == pool {
				names = append(names, ref.Name)
			}
		}
		return nil
	})
	return names, err
}

// HasChanges implements rbdutil.Store.
func (f *Ceph) HasChanges(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, since string) (bool, error) {
	var written bool
	err := f.do(ctx, OpHasChanges, c, ref, func() error {
		img, err := f.find(ref)
		if err != nil {
			return err
		}
		written = img.written
		if since != "" {
			s := img.snapshots[since]
			if s == nil {
				return fmt.Errorf("read image %s@%s: %w", ref, since, rbdutil.ErrImageNotFound)
			}
			written = s.overwritten
		}
		return nil
	})
	return written, err
}

// do runs one operation, unless the limiter refuses it.
func (f *Ceph) do(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef, effect func() error) error {
	if f.Limiter == nil {
		return f.run(ctx, op, c, ref, effect)
	}
	lengthy := op == OpRemoveFromTrash || op == OpHasChanges || op == OpFlatten
	return f.Limiter.Run(ctx, c, ref.Pool, lengthy, func() error { return f.run(ctx, op, c, ref, effect) })
}

// run runs one operation between its hooks.
func (f *Ceph) run(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef, effect func() error) error {
	if f.Before != nil {
		if err := f.Before(ctx, op, c, ref); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s image %s: %w", op, ref, rbdutil.ErrTimeout)
	}
	if err := f.locked(ref, effect); err != nil {
		return err
	}
	if f.After != nil {
		return f.After(ctx, op, c, ref)
	}
	return nil
}

func (f *Ceph) locked(ref rbdutil.ImageRef, effect func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.pools[ref.Pool] {
		return fmt.Errorf("open pool %s: %w", ref.Pool, rbdutil.ErrPoolNotFound)
	}
	return effect()
}

// now reads the clock.
func (f *Ceph) now() time.Time {
	if f.Now == nil {
		return time.Now()
	}
	return f.Now()
}

// newID returns an id that no image has had yet.
func (f *Ceph) newID() string {
	f.ids++
	return fmt.Sprintf("%012x", f.ids)
}

func (f *Ceph) find(ref rbdutil.ImageRef) (*image, error) {
	img := f.images[ref]
	if img == nil || img.partial {
		return nil, fmt.Errorf("open image %s: %w", ref, rbdutil.ErrImageNotFound)
	}
	return img, nil
}
