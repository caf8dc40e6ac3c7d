package rbdutil

import "context"

// ListTrash lists a pool's trash, including images that others moved there.
func (i *Images) ListTrash(ctx context.Context, c Cluster, pool string) ([]TrashedImage, error) {
	return i.store.ListTrash(ctx, c, pool)
}

// GetTrashed reads the record of an image in the trash: see Store.
func (i *Images) GetTrashed(ctx context.Context, c Cluster, pool string, img TrashedImage) (Record, error) {
	return i.store.GetTrashed(ctx, c, pool, img)
}

// RemoveFromTrash removes an image that the maker moved to the trash: see Store.
func (i *Images) RemoveFromTrash(ctx context.Context, c Cluster, pool string, img TrashedImage, maker Owner) error {
	return i.store.RemoveFromTrash(ctx, c, pool, img, maker)
}

// Restore moves an image from the trash back to its name: see Store.
func (i *Images) Restore(ctx context.Context, c Cluster, pool string, img TrashedImage) error {
	return i.store.Restore(ctx, c, pool, img)
}
