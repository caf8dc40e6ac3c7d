package librbd

import (
	"context"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/cephconn"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// Clone implements rbdutil.Store.
//
// Similar to: rbd clone --rbd-default-clone-format 1 --image-feature F --object-size N
// --stripe-unit N --stripe-count 1 [--data-pool P] POOL/PARENT@SNAPSHOT POOL/IMAGE
func (s *Store) Clone(ctx context.Context, c rbdutil.Cluster, parent rbdutil.ImageRef, snapshot string, ref rbdutil.ImageRef, layout rbdutil.Layout) error {
	return s.do(ctx, operation{name: "clone", image: ref}, c, func(conn *rados.Conn, pool *rados.IOContext) error {
		if layout.DataPool != "" {
			// The errno of the clone operation does not show what is missing.
			if _, err := conn.GetPoolByName(layout.DataPool); err != nil {
				return createError(ref, layout, err)
			}
		}
		return cephconn.OnPool(conn, parent.Pool, func(from *rados.IOContext) error {
			err := cloneImage(from, parent, snapshot, pool, ref, layout)
			return cloneError(parent, snapshot, ref, err)
		})
	})
}

// cloneImage creates a clone with the object size of its parent. The clone has no striping,
// even if the parent has.
func cloneImage(from *rados.IOContext, parent rbdutil.ImageRef, snapshot string, pool *rados.IOContext, ref rbdutil.ImageRef, layout rbdutil.Layout) error {
	image, err := rbd.OpenImageReadOnly(from, parent.Name, snapshot)
	if err != nil {
		return err
	}
	stat, err := image.Stat()
	closeImage(image)
	if err != nil {
		return err
	}
	layout.ObjectSize = stat.Obj_size
	opts := rbd.NewRbdImageOptions()
	defer opts.Destroy()
	if err := setLayout(opts, layout); err != nil {
		return err
	}
	// Clone format 2 adds the feature "operations" to both images, which kernels before 4.16
	// do not map. The clone format is independent of the image format.
	const cloneFormat = 1
	if err := opts.SetUint64(rbd.ImageOptionCloneFormat, cloneFormat); err != nil {
		return err
	}
	return rbd.CloneImage(from, parent.Name, snapshot, pool, ref.Name, opts)
}

func cloneError(parent rbdutil.ImageRef, snapshot string, ref rbdutil.ImageRef, err error) error {
	return errno.Wrap(fmt.Sprintf("clone %s@%s to image %s", parent, snapshot, ref), err, map[syscall.Errno]error{
		syscall.EEXIST: rbdutil.ErrImageExists,
		syscall.ENOENT: rbdutil.ErrSourceNotFound,
	})
}

// CloneDepth implements rbdutil.Store.
//
// Similar to: rbd info POOL/IMAGE, and of its parent, and so on
func (s *Store) CloneDepth(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) (int, error) {
	return read(ctx, s, operation{name: "clone-depth", image: ref}, c, func(conn *rados.Conn, pool *rados.IOContext) (int, error) {
		image, err := rbd.OpenImageReadOnly(pool, ref.Name, rbd.NoSnapshot)
		if err != nil {
			return 0, openError(pool, ref, err)
		}
		parent, err := parentOf(image)
		closeImage(image)
		depth := 0
		for ; err == nil && parent != nil; depth++ {
			parent, err = grandparentOf(conn, *parent)
		}
		return depth, imageError("read the parents of", ref, err)
	})
}

// grandparentOf returns the parent of a parent, or nil.
func grandparentOf(conn *rados.Conn, parent rbdutil.SnapshotRef) (grandparent *rbdutil.SnapshotRef, err error) {
	err = cephconn.OnPool(conn, parent.Pool, func(pool *rados.IOContext) error {
		// Open the snapshot, not the image: the image may have been flattened since.
		image, err := rbd.OpenImageByIdReadOnly(pool, parent.ImageID, parent.Name)
		if err != nil {
			return err
		}
		defer closeImage(image)
		grandparent, err = parentOf(image)
		return err
	})
	return grandparent, err
}

// parentOf returns the snapshot that an image is a clone of, or nil.
func parentOf(image *rbd.Image) (*rbdutil.SnapshotRef, error) {
	parent, err := image.GetParent()
	if errno.Of(err) == syscall.ENOENT {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, err
	}
	return &rbdutil.SnapshotRef{Pool: parent.Image.PoolName, ImageID: parent.Image.ImageID, Name: parent.Snap.SnapName}, nil
}

// Flatten implements rbdutil.Store.
//
// Similar to: rbd flatten POOL/IMAGE
func (s *Store) Flatten(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) error {
	return s.do(ctx, operation{name: "flatten", image: ref, lengthy: true}, c, func(_ *rados.Conn, pool *rados.IOContext) error {
		image, err := rbd.OpenImage(pool, ref.Name, rbd.NoSnapshot)
		if err != nil {
			return openError(pool, ref, err)
		}
		defer closeImage(image)
		if parent, err := parentOf(image); err != nil || parent == nil {
			return imageError("read", ref, err)
		}
		return imageError("flatten", ref, image.Flatten())
	})
}
