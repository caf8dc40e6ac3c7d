package rbdfake

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Trash implements rbdutil.Store.
func (f *Ceph) Trash(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, mark rbdutil.Mark) error {
	return f.do(ctx, OpTrash, c, ref, func() error {
		img, err := f.find(ref)
		if err != nil {
			return err
		}
		switch {
		case len(img.Watchers) > 0:
			return fmt.Errorf("move to the trash image %s: %w", ref, rbdutil.ErrImageInUse)
		case img.grouped:
			return fmt.Errorf("move to the trash image %s: %w", ref, rbdutil.ErrInGroup)
		}
		delete(f.images, ref)
		img.trashed = time.Now()
		img.Metadata[rbdutil.MetaDeletedBy] = mark.At(img.trashed)
		f.trash[rbdutil.ImageRef{Pool: ref.Pool, Name: img.ID}] = img
		return nil
	})
}

// Trashed implements rbdutil.Store.
func (f *Ceph) Trashed(ctx context.Context, c rbdutil.Cluster, pool string) ([]rbdutil.TrashedImage, error) {
	var trashed []rbdutil.TrashedImage
	err := f.do(ctx, OpTrashed, c, rbdutil.ImageRef{Pool: pool}, func() error {
		for key, img := range f.trash {
			if key.Pool == pool {
				trashed = append(trashed, rbdutil.TrashedImage{ID: key.Name, Name: img.Name, Trashed: img.trashed})
			}
		}
		return nil
	})
	return trashed, err
}

// Purge implements rbdutil.Store.
func (f *Ceph) Purge(ctx context.Context, c rbdutil.Cluster, pool string, trashed rbdutil.TrashedImage, mark rbdutil.Mark) error {
	key := rbdutil.ImageRef{Pool: pool, Name: trashed.ID}
	return f.do(ctx, OpPurge, c, key, func() error {
		img := f.trash[key]
		switch {
		case img == nil:
			return fmt.Errorf("purge image %s: %w", key, rbdutil.ErrImageNotFound)
		case !mark.Covers(img.Metadata[rbdutil.MetaDeletedBy], img.trashed):
			return fmt.Errorf("%w: image %s was put into the trash by %q", rbdutil.ErrNotOurs, key, img.Metadata[rbdutil.MetaDeletedBy])
		case len(img.Watchers) > 0:
			return fmt.Errorf("purge image %s: %w", key, rbdutil.ErrImageInUse)
		}
		for name := range img.snapshots {
			if err := f.release(img, name); err != nil {
				return fmt.Errorf("purge image %s: %w", key, err)
			}
		}
		if len(img.Snapshots) > 0 {
			return fmt.Errorf("purge image %s: %w", key, rbdutil.ErrHasSnapshots)
		}
		delete(f.trash, key)
		if img.Parent == nil {
			return nil
		}
		if _, ours := rbdutil.CloneOf(img.Parent.Name); ours {
			// Other clones may be left, and the parent may be gone.
			if parent := f.byID(img.Parent.Pool, img.Parent.ImageID); parent != nil {
				_ = f.release(parent, img.Parent.Name)
			}
		}
		return nil
	})
}

// TrashedNames lists what is in the trash as POOL/NAME, sorted.
func (f *Ceph) TrashedNames() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := make([]string, 0, len(f.trash))
	for _, img := range f.trash {
		names = append(names, img.String())
	}
	slices.Sort(names)
	return names
}
