// Package rbdfake is a Ceph cluster in memory, for unit tests. It keeps the
// contract of rbdutil/rbdtest, as real Ceph does, and fails where it is told to.
package rbdfake

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// defaultObjectSize is Ceph's own default, in bytes.
const defaultObjectSize = 4 << 20

// Ops are the names that hooks see.
const (
	OpCreate   = "create"
	OpGet      = "get"
	OpComplete = "complete"
	OpRemains  = "remains"
	OpList     = "list"
	OpWritten  = "written"
	OpTrash    = "trash"
	OpTrashed  = "trashed"
	OpPurge    = "purge"
	OpSnapshot = "snapshot"
	OpRelease  = "release"
	OpClone    = "clone"
	OpDepth    = "depth"
	OpFlatten  = "flatten"
)

// Ceph is a rbdutil.Store over maps. Its zero value has no pools; use New.
type Ceph struct {
	// Before, if set, runs before an operation; an error from it is the
	// operation's, and nothing happens.
	Before func(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef) error
	// After, if set, runs when an operation has taken effect; an error from it
	// is the operation's, though the effect stays: a lost answer.
	After func(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef) error

	mu     sync.Mutex
	pools  map[string]bool
	images map[rbdutil.ImageRef]*image
	trash  map[rbdutil.ImageRef]*image // by pool and id
	ids    int
}

type image struct {
	rbdutil.Image
	written, grouped bool
	trashed          time.Time
	// snapshots are those that were taken by Snapshot, and what they show.
	snapshots map[string]*snapshot
	// remains: the name is taken, but the image behind it never came to be or
	// is gone, as after a crash of the client in the middle of it.
	remains bool
}

// snapshot is what an image was at one moment.
type snapshot struct {
	size uint64
	// overwritten tells whether the image was written to since.
	overwritten bool
}

// New returns a cluster with the pools given.
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
		features := layout.Features
		if layout.DataPool != "" {
			if !f.pools[layout.DataPool] {
				return fmt.Errorf("create image %s: %w: %s", ref, rbdutil.ErrDataPoolNotFound, layout.DataPool)
			}
			features |= 1 << 7 // data-pool, which Ceph adds by itself
		}
		objectSize := layout.ObjectSize
		if objectSize == 0 {
			objectSize = defaultObjectSize
		}
		f.images[ref] = &image{Image: rbdutil.Image{
			ImageRef: ref, ID: f.newID(), Features: features, ObjectSize: objectSize, Metadata: map[string]string{},
		}}
		return nil
	})
}

// Get implements rbdutil.Store.
func (f *Ceph) Get(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) (rbdutil.Image, error) {
	var got rbdutil.Image
	err := f.do(ctx, OpGet, c, ref, func() error {
		img, err := f.find(ref)
		if err != nil {
			return err
		}
		got = img.Image
		got.Metadata = maps.Clone(img.Metadata)
		got.Watchers = slices.Clone(img.Watchers)
		got.Snapshots = slices.Clone(img.Snapshots)
		got.Clones = slices.Clone(img.Clones)
		foreign := slices.ContainsFunc(img.Snapshots, func(name string) bool { return img.snapshots[name] == nil })
		for _, name := range img.Snapshots {
			if !foreign {
				break
			}
			got.Clones = append(got.Clones, f.clonesOf(rbdutil.SnapshotRef{Pool: ref.Pool, ImageID: img.ID, Name: name})...)
		}
		return nil
	})
	return got, err
}

// Complete implements rbdutil.Store.
func (f *Ceph) Complete(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, metadata []rbdutil.MetadataItem, size uint64) error {
	return f.do(ctx, OpComplete, c, ref, func() error {
		img, err := f.find(ref)
		if err != nil {
			return err
		}
		if size < img.Size {
			return fmt.Errorf("resize image %s: %w: it would shrink", ref, rbdutil.ErrInvalid)
		}
		for _, item := range metadata {
			img.Metadata[item.Key] = item.Value
		}
		img.Size = size
		return nil
	})
}

// RemoveRemains implements rbdutil.Store.
func (f *Ceph) RemoveRemains(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) error {
	return f.do(ctx, OpRemains, c, ref, func() error {
		img := f.images[ref]
		switch {
		case img == nil:
			return fmt.Errorf("remove image %s: %w", ref, rbdutil.ErrImageNotFound)
		case !img.remains:
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

// Written implements rbdutil.Store.
func (f *Ceph) Written(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, since string) (bool, error) {
	var written bool
	err := f.do(ctx, OpWritten, c, ref, func() error {
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

// do runs one operation between its hooks.
func (f *Ceph) do(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef, effect func() error) error {
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

// newID returns an id that no image has had yet.
func (f *Ceph) newID() string {
	f.ids++
	return fmt.Sprintf("%012x", f.ids)
}

func (f *Ceph) find(ref rbdutil.ImageRef) (*image, error) {
	img := f.images[ref]
	if img == nil || img.remains {
		return nil, fmt.Errorf("open image %s: %w", ref, rbdutil.ErrImageNotFound)
	}
	return img, nil
}
