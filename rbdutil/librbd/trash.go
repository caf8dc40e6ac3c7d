package librbd

import (
	"context"
	"fmt"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// MoveToTrash implements rbdutil.Store.
//
// Similar to: rbd image-meta set POOL/IMAGE KEY VALUE; rbd trash mv --expires-at T POOL/IMAGE
func (s *Store) MoveToTrash(ctx context.Context, c rbdutil.Cluster, seen rbdutil.Image, record rbdutil.Record, keep time.Duration) error {
	return s.do(ctx, operation{name: "trash-move", image: seen.ImageRef}, c, func(conn *rados.Conn, pool *rados.IOContext) error {
		return trashMove{conn, pool, seen, record, keep}.run()
	})
}

// ListTrash implements rbdutil.Store.
//
// Similar to: rbd trash ls --all POOL
func (s *Store) ListTrash(ctx context.Context, c rbdutil.Cluster, pool string) ([]rbdutil.TrashedImage, error) {
	op := operation{name: "trash-list", image: rbdutil.ImageRef{Pool: pool}}
	return read(ctx, s, op, c, func(_ *rados.Conn, ioctx *rados.IOContext) ([]rbdutil.TrashedImage, error) {
		trashed, err := listTrash(ioctx)
		return trashed, errno.Wrap("list the trash of pool "+pool, err, nil)
	})
}

// GetTrashed implements rbdutil.Store.
//
// Similar to: rbd image-meta get --image-id ID --pool POOL KEY
func (s *Store) GetTrashed(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage) (rbdutil.Record, error) {
	op := operation{name: "trash-get", image: trashRef(pool, img)}
	return read(ctx, s, op, c, func(_ *rados.Conn, ioctx *rados.IOContext) (rbdutil.Record, error) {
		return readTrashed(ioctx, op.image, img.ID)
	})
}

// RemoveFromTrash implements rbdutil.Store.
//
// Similar to: rbd trash rm POOL/ID
func (s *Store) RemoveFromTrash(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage, maker rbdutil.Owner) error {
	op := operation{name: "trash-remove", image: trashRef(pool, img), lengthy: true}
	return s.onTrashed(ctx, op, c, img, func(conn *rados.Conn, entry trashEntry) error {
		return entry.remove(s, conn, maker)
	})
}

// Restore implements rbdutil.Store.
//
// Similar to: rbd trash restore POOL/ID; rbd image-meta set POOL/IMAGE KEY VALUE
func (s *Store) Restore(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage) error {
	op := operation{name: "trash-restore", image: trashRef(pool, img)}
	return s.onTrashed(ctx, op, c, img, func(_ *rados.Conn, entry trashEntry) error {
		return entry.restore()
	})
}

// onTrashed runs an operation that changes an image in the trash, with its current entry.
func (s *Store) onTrashed(ctx context.Context, op operation, c rbdutil.Cluster, img rbdutil.TrashedImage, fn func(*rados.Conn, trashEntry) error) error {
	ref := op.image
	return s.do(ctx, op, c, func(conn *rados.Conn, ioctx *rados.IOContext) error {
		if err := s.checkMoved(conn, ref.Pool, img); err != nil {
			return err
		}
		now, err := findTrashed(ioctx, img.ID)
		if err != nil {
			return imageError("find", ref, err)
		}
		if now == nil {
			return fmt.Errorf("find image %s: %w", ref, rbdutil.ErrImageNotFound)
		}
		return fn(conn, trashEntry{TrashedImage: *now, pool: ioctx, ref: ref})
	})
}

// checkMoved returns ErrInProgress while an operation runs that may move the image to the
// trash, or back.
func (s *Store) checkMoved(conn *rados.Conn, pool string, img rbdutil.TrashedImage) error {
	ref := rbdutil.ImageRef{Pool: pool, Name: img.Name}
	return s.withLock(conn, ref, "image "+ref.String(), func() error { return nil })
}

// trashRef returns the reference of an image in the trash. An image cannot have such a name:
// a new image with the old name is another one.
func trashRef(pool string, img rbdutil.TrashedImage) rbdutil.ImageRef {
	return rbdutil.ImageRef{Pool: pool, Name: "trash/" + img.ID}
}

// readTrashed reads the record of an image in the trash. If its removal was interrupted, it
// may have neither record nor data any more.
func readTrashed(pool *rados.IOContext, ref rbdutil.ImageRef, id string) (rbdutil.Record, error) {
	image, err := rbd.OpenImageByIdReadOnly(pool, id, rbd.NoSnapshot)
	if err != nil {
		return rbdutil.Record{}, openTrashedError(pool, ref, id, err)
	}
	defer closeImage(image)
	text, err := readRecord(image)
	if err != nil {
		return rbdutil.Record{}, imageError("read the metadata of", ref, err)
	}
	if text == nil {
		return rbdutil.Record{}, fmt.Errorf("%w: image %s has no record", rbdutil.ErrForeignImage, ref)
	}
	record, err := decode(text)
	if err != nil {
		return rbdutil.Record{}, fmt.Errorf("%w: image %s: %w", rbdutil.ErrForeignImage, ref, err)
	}
	return record, nil
}
