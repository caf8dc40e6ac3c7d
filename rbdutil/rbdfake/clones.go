package rbdfake

import (
	"context"
	"fmt"
	"slices"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// CreateSnapshot implements rbdutil.Store.
func (f *Ceph) CreateSnapshot(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, name string) error {
	return f.do(ctx, OpCreateSnapshot, c, ref, func() error {
		img, err := f.find(ref)
		if err != nil {
			return err
		}
		if img.snapshots[name] != nil {
			return nil
		}
		if img.snapshots == nil {
			img.snapshots = map[string]*snapshot{}
		}
		img.snapshots[name] = &snapshot{size: img.Size}
		img.Snapshots = append(img.Snapshots, name)
		return nil
	})
}

// RemoveSnapshot implements rbdutil.Store.
func (f *Ceph) RemoveSnapshot(ctx context.Context, c rbdutil.Cluster, ref rbdutil.SnapshotRef) error {
	return f.do(ctx, OpRemoveSnapshot, c, rbdutil.ImageRef{Pool: ref.Pool, Name: ref.ImageID}, func() error {
		if img := f.byID(ref.Pool, ref.ImageID); img != nil {
			return f.removeSnapshot(img, ref.Name)
		}
		return nil
	})
}

// removeSnapshot removes a snapshot that was taken by CreateSnapshot.
func (f *Ceph) removeSnapshot(img *image, name string) error {
	if len(f.clonesOf(rbdutil.SnapshotRef{Pool: img.Pool, ImageID: img.ID, Name: name})) > 0 {
		return fmt.Errorf("release snapshot %s@%s: %w", img.ImageRef, name, rbdutil.ErrHasClones)
	}
	delete(img.snapshots, name)
	img.Snapshots = slices.DeleteFunc(img.Snapshots, func(other string) bool { return other == name })
	return nil
}

// Clone implements rbdutil.Store.
func (f *Ceph) Clone(ctx context.Context, c rbdutil.Cluster, parent rbdutil.ImageRef, name string, ref rbdutil.ImageRef, layout rbdutil.Layout) error {
	return f.do(ctx, OpClone, c, ref, func() error {
		source, err := f.find(parent)
		if err != nil || source.snapshots[name] == nil {
			return fmt.Errorf("clone image %s@%s: %w", parent, name, rbdutil.ErrSourceNotFound)
		}
		if f.images[ref] != nil {
			return fmt.Errorf("clone image %s: %w", ref, rbdutil.ErrImageExists)
		}
		features, err := f.featuresOf(layout)
		if err != nil {
			return fmt.Errorf("clone image %s: %w", ref, err)
		}
		f.images[ref] = &image{Image: rbdutil.Image{
			ImageRef: ref, ID: f.newID(), Size: source.snapshots[name].size,
			Features: features, ObjectSize: source.ObjectSize,
			// Ceph copies the metadata of the source.
			Record: source.Record, RecordError: source.RecordError,
			Parent: &rbdutil.SnapshotRef{Pool: parent.Pool, ImageID: source.ID, Name: name},
		}}
		return nil
	})
}

// CloneDepth implements rbdutil.Store.
func (f *Ceph) CloneDepth(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) (int, error) {
	depth := 0
	err := f.do(ctx, OpCloneDepth, c, ref, func() error {
		img, err := f.find(ref)
		for err == nil && img != nil && img.Parent != nil {
			depth++
			img = f.byID(img.Parent.Pool, img.Parent.ImageID)
		}
		return err
	})
	return depth, err
}

// Flatten implements rbdutil.Store.
func (f *Ceph) Flatten(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) error {
	return f.do(ctx, OpFlatten, c, ref, func() error {
		img, err := f.find(ref)
		if err != nil {
			return err
		}
		if img.Parent != nil {
			img.Parent, img.written = nil, true
		}
		return nil
	})
}

// byID finds an image, in the trash or outside.
func (f *Ceph) byID(pool, id string) *image {
	if img := f.trash[rbdutil.ImageRef{Pool: pool, Name: id}]; img != nil {
		return img
	}
	for ref, img := range f.images {
		if ref.Pool == pool && img.ID == id {
			return img
		}
	}
	return nil
}

// clonesOf lists the clones of a snapshot, as POOL/NAME.
func (f *Ceph) clonesOf(parent rbdutil.SnapshotRef) []string {
	var clones []string
	for _, images := range []map[rbdutil.ImageRef]*image{f.images, f.trash} {
		for _, img := range images {
			if img.Parent != nil && *img.Parent == parent {
				clones = append(clones, img.String())
			}
		}
	}
	slices.Sort(clones)
	return clones
}
