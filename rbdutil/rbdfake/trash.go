package rbdfake

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// MoveToTrash implements rbdutil.Store.
func (f *Ceph) MoveToTrash(ctx context.Context, c rbdutil.Cluster, seen rbdutil.Image, record rbdutil.Record, keep time.Duration) error {
	ref := seen.ImageRef
	return f.do(ctx, OpMoveToTrash, c, ref, func() error {
		img, err := f.find(ref)
		if err != nil {
			return err
		}
		if !img.Same(seen) {
			return fmt.Errorf("move image %s to the trash: %w", ref, rbdutil.ErrChanged)
		}
		if err := rbdutil.CheckFree(f.describe(img)); err != nil {
			return err
		}
		img.Record, img.RecordError = record, nil
		f.moveToTrash(img, keep)
		return nil
	})
}

func (f *Ceph) moveToTrash(img *image, keep time.Duration) {
	delete(f.images, img.ImageRef)
	img.trashed = f.now()
	img.keepUntil = img.trashed.Add(keep)
	f.trash[rbdutil.ImageRef{Pool: img.Pool, Name: img.ID}] = img
}

// ListTrash implements rbdutil.Store.
func (f *Ceph) ListTrash(ctx context.Context, c rbdutil.Cluster, pool string) ([]rbdutil.TrashedImage, error) {
	var trashed []rbdutil.TrashedImage
	err := f.do(ctx, OpListTrash, c, rbdutil.ImageRef{Pool: pool}, func() error {
		for key, img := range f.trash {
			if key.Pool == pool {
				trashed = append(trashed, img.inTrash(key))
			}
		}
		return nil
	})
	return trashed, err
}

// inTrash returns the entry of an image in the trash.
func (img *image) inTrash(key rbdutil.ImageRef) rbdutil.TrashedImage {
	return rbdutil.TrashedImage{
		ID: key.Name, Name: img.Name, Trashed: img.trashed, KeepUntil: img.keepUntil, Migrating: img.migrationSource,
	}
}

// GetTrashed implements rbdutil.Store.
func (f *Ceph) GetTrashed(ctx context.Context, c rbdutil.Cluster, pool string, trashed rbdutil.TrashedImage) (rbdutil.Record, error) {
	var record rbdutil.Record
	key := rbdutil.ImageRef{Pool: pool, Name: trashed.ID}
	err := f.do(ctx, OpGetTrashed, c, key, func() error {
		img, err := f.findTrashed(key)
		switch {
		case err != nil:
			return err
		case img.RecordError != nil:
			return fmt.Errorf("%w: image %s: %w", rbdutil.ErrForeignImage, key, img.RecordError)
		case img.Record == rbdutil.Record{}:
			return fmt.Errorf("%w: image %s has no record", rbdutil.ErrForeignImage, key)
		}
		record = img.Record
		return nil
	})
	return record, err
}

// RemoveFromTrash implements rbdutil.Store.
func (f *Ceph) RemoveFromTrash(ctx context.Context, c rbdutil.Cluster, pool string, trashed rbdutil.TrashedImage, maker rbdutil.Owner) error {
	key := rbdutil.ImageRef{Pool: pool, Name: trashed.ID}
	return f.do(ctx, OpRemoveFromTrash, c, key, func() error {
		img, err := f.findTrashed(key)
		if err != nil {
			return err
		}
		if err := f.checkRemovable(key, img, maker); err != nil {
			return err
		}
		for name := range img.snapshots {
			if err := f.removeSnapshot(img, name); err != nil {
				return fmt.Errorf("remove image %s from the trash: %w", key, err)
			}
		}
		if len(img.Snapshots) > 0 {
			return fmt.Errorf("remove image %s from the trash: %w", key, rbdutil.ErrHasSnapshots)
		}
		delete(f.trash, key)
		f.removeParentSnapshot(img)
		return nil
	})
}

// checkRemovable returns an error if an image in the trash must not be removed.
func (f *Ceph) checkRemovable(key rbdutil.ImageRef, img *image, maker rbdutil.Owner) error {
	switch {
	case img.migrationSource, img.RecordError != nil, !img.Record.DeletedBy(maker, img.inTrash(key)):
		return fmt.Errorf("%w: image %s was not moved to the trash by %s in cluster %s", rbdutil.ErrForeignImage, key, maker.Provisioner, maker.ClusterID)
	case f.now().Before(img.keepUntil):
		return fmt.Errorf("remove image %s from the trash: %w until %s", key, rbdutil.ErrNotExpired, img.keepUntil)
	case len(img.Watchers) > 0:
		return fmt.Errorf("remove image %s from the trash: %w", key, rbdutil.ErrImageInUse)
	case img.Record.Deleted.Unused && img.written:
		return fmt.Errorf("remove image %s from the trash: %w", key, rbdutil.ErrNotEmpty)
	}
	return nil
}

// removeParentSnapshot removes the snapshot that the image was a clone of, unless it has other
// clones.
func (f *Ceph) removeParentSnapshot(img *image) {
	if img.Parent == nil {
		return
	}
	if _, ours := rbdutil.CloneOf(img.Parent.Name); !ours {
		return
	}
	if parent := f.byID(img.Parent.Pool, img.Parent.ImageID); parent != nil {
		_ = f.removeSnapshot(parent, img.Parent.Name)
	}
}

// Restore implements rbdutil.Store.
func (f *Ceph) Restore(ctx context.Context, c rbdutil.Cluster, pool string, trashed rbdutil.TrashedImage) error {
	key := rbdutil.ImageRef{Pool: pool, Name: trashed.ID}
	return f.do(ctx, OpRestore, c, key, func() error {
		img, err := f.findTrashed(key)
		switch {
		case err != nil:
			return err
		case img.migrationSource:
			return fmt.Errorf("restore image %s: %w", key, rbdutil.ErrMigrating)
		case f.images[img.ImageRef] != nil:
			return fmt.Errorf("restore image %s as %s: %w", key, img.ImageRef, rbdutil.ErrImageExists)
		}
		delete(f.trash, key)
		img.Record.Deleted = nil
		img.trashed, img.keepUntil = time.Time{}, time.Time{}
		f.images[img.ImageRef] = img
		return nil
	})
}

func (f *Ceph) findTrashed(key rbdutil.ImageRef) (*image, error) {
	img := f.trash[key]
	if img == nil {
		return nil, fmt.Errorf("open image %s in the trash: %w", key, rbdutil.ErrImageNotFound)
	}
	return img, nil
}

// TrashedNames lists the images in the trash as POOL/NAME, sorted.
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
