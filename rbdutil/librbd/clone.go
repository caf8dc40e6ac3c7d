package librbd

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// CreateSnapshot implements rbdutil.Store.
//
// Similar to: rbd snap create POOL/IMAGE@SNAPSHOT; rbd snap protect POOL/IMAGE@SNAPSHOT
func (s *Store) CreateSnapshot(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, name string) error {
	// Many clones may be made of one image at a time.
	op := operation{name: "snapshot", image: rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "@" + name}}
	return s.do(ctx, op, c, func(_ *rados.Conn, pool *rados.IOContext) error {
		image, err := rbd.OpenImage(pool, ref.Name, rbd.NoSnapshot)
		if err != nil {
			return openError(pool, ref, err)
		}
		defer closeImage(image)
		if _, err := image.CreateSnapshot(name); err != nil && errnoOf(err) != syscall.EEXIST {
			return imageError("take a snapshot of", ref, err)
		}
		snapshot := image.GetSnapshot(name)
		// Protected already: it was there, or somebody else is just as far.
		if err := snapshot.Protect(); err != nil && errnoOf(err) != syscall.EBUSY {
			return imageError("protect the snapshot of", ref, err)
		}
		return nil
	})
}

// RemoveSnapshot implements rbdutil.Store.
//
// Similar to: rbd snap unprotect POOL/IMAGE@SNAPSHOT; rbd snap rm POOL/IMAGE@SNAPSHOT
func (s *Store) RemoveSnapshot(ctx context.Context, c rbdutil.Cluster, snapshot rbdutil.SnapshotRef) error {
	op := operation{name: "release", image: rbdutil.ImageRef{Pool: snapshot.Pool, Name: snapshot.ImageID + "@" + snapshot.Name}}
	return s.do(ctx, op, c, func(_ *rados.Conn, pool *rados.IOContext) error { return release(pool, snapshot) })
}

// release removes a snapshot that nothing is a clone of. Ceph looks for clones in all
// pools.
func release(pool *rados.IOContext, ref rbdutil.SnapshotRef) error {
	image, err := rbd.OpenImageById(pool, ref.ImageID, rbd.NoSnapshot)
	if err != nil {
		if errnoOf(err) == syscall.ENOENT && !exists(pool, headerOf(ref.ImageID)) {
			return nil
		}
		return releaseError(ref, err)
	}
	defer closeImage(image)
	snapshots, err := snapshotsOf(image)
	if err != nil {
		return releaseError(ref, err)
	}
	for _, s := range snapshots {
		switch {
		case s.name != ref.Name:
			continue
		case s.trashed:
			err = removeTrashed(pool, ref.ImageID, s.id)
		default:
			err = removeSnapshot(image.GetSnapshot(s.name))
		}
		if err != nil {
			return releaseError(ref, err)
		}
	}
	return nil
}

// removeSnapshot removes a snapshot that may be protected, or gone.
func removeSnapshot(snapshot *rbd.Snapshot) error {
	protected, err := snapshot.IsProtected()
	if err == nil && protected {
		err = snapshot.Unprotect()
	}
	// Not protected any more: somebody else is just as far.
	if err == nil || errnoOf(err) == syscall.EINVAL {
		err = snapshot.Remove()
	}
	if errnoOf(err) == syscall.ENOENT {
		return nil
	}
	return err
}

func releaseError(ref rbdutil.SnapshotRef, err error) error {
	return wrap("remove snapshot "+ref.String(), err, map[syscall.Errno]error{
		syscall.EBUSY: rbdutil.ErrHasClones,
	})
}

// releaseParent removes the snapshot that an image was a clone of, if it was taken for a
// clone and has no other.
func releaseParent(conn *rados.Conn, parent *rbdutil.SnapshotRef) error {
	if parent == nil {
		return nil
	}
	if _, ours := rbdutil.CloneOf(parent.Name); !ours {
		return nil
	}
	err := onPool(conn, parent.Pool, func(pool *rados.IOContext) error { return release(pool, *parent) })
	if errors.Is(err, rbdutil.ErrHasClones) || errors.Is(err, rbdutil.ErrPoolNotFound) {
		return nil
	}
	return err
}

// Clone implements rbdutil.Store.
//
// Similar to: rbd clone --rbd-default-clone-format 1 --image-feature F --object-size N
// --stripe-unit N --stripe-count 1 [--data-pool P] POOL/PARENT@SNAPSHOT POOL/IMAGE
func (s *Store) Clone(ctx context.Context, c rbdutil.Cluster, parent rbdutil.ImageRef, snapshot string, ref rbdutil.ImageRef, layout rbdutil.Layout) error {
	return s.do(ctx, operation{name: "clone", image: ref}, c, func(conn *rados.Conn, pool *rados.IOContext) error {
		if layout.DataPool != "" {
			// Ceph's answer to the clone would not tell what is missing.
			if _, err := conn.GetPoolByName(layout.DataPool); err != nil {
				return createError(ref, layout, err)
			}
		}
		return onPool(conn, parent.Pool, func(from *rados.IOContext) error {
			err := clone(from, parent, snapshot, pool, ref, layout)
			return cloneError(parent, snapshot, ref, err)
		})
	})
}

// clone makes a clone that has the object size of its parent, and is not striped even if
// that is.
func clone(from *rados.IOContext, parent rbdutil.ImageRef, snapshot string, pool *rados.IOContext, ref rbdutil.ImageRef, layout rbdutil.Layout) error {
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
	// Format 2 would give both images the feature "operations", which kernels before
	// 4.16 do not map. Ceph's "clone format" has nothing to do with the image format.
	const cloneFormat = 1
	if err := opts.SetUint64(rbd.ImageOptionCloneFormat, cloneFormat); err != nil {
		return err
	}
	return rbd.CloneImage(from, parent.Name, snapshot, pool, ref.Name, opts)
}

func cloneError(parent rbdutil.ImageRef, snapshot string, ref rbdutil.ImageRef, err error) error {
	return wrap(fmt.Sprintf("make image %s of %s@%s", ref, parent, snapshot), err, map[syscall.Errno]error{
		syscall.EEXIST: rbdutil.ErrImageExists,
		syscall.ENOENT: rbdutil.ErrSourceNotFound,
	})
}

// CloneDepth implements rbdutil.Store.
//
// Similar to: rbd info POOL/IMAGE, and of its parent, and so on
func (s *Store) CloneDepth(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) (int, error) {
	result := make(chan int, 1)
	err := s.do(ctx, operation{name: "depth", image: ref, reads: true}, c, func(conn *rados.Conn, pool *rados.IOContext) error {
		image, err := rbd.OpenImageReadOnly(pool, ref.Name, rbd.NoSnapshot)
		if err != nil {
			return openError(pool, ref, err)
		}
		parent, err := parentOf(image)
		closeImage(image)
		depth := 0
		for ; err == nil && parent != nil; depth++ {
			parent, err = grandparentOf(conn, *parent)
		}
		if err != nil {
			return imageError("read the parents of", ref, err)
		}
		result <- depth
		return nil
	})
	if err != nil {
		return 0, err
	}
	return <-result, nil
}

// grandparentOf returns what a parent is a clone of itself.
func grandparentOf(conn *rados.Conn, parent rbdutil.SnapshotRef) (grandparent *rbdutil.SnapshotRef, err error) {
	err = onPool(conn, parent.Pool, func(pool *rados.IOContext) error {
		// The snapshot, not the image, which may have been cut off from its parent since.
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
	if errnoOf(err) == syscall.ENOENT {
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
