package librbd

// #cgo LDFLAGS: -lrbd
// #include <stdlib.h>
// #include <rbd/librbd.h>
import "C"

import (
	"context"
	"errors"
	"syscall"
	"time"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/cephconn"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// snapshotInfo is a snapshot of an image. To remove a snapshot, Ceph first moves it to a
// namespace of its own under another name. Here, it still has the original name.
type snapshotInfo struct {
	id      uint64
	name    string
	trashed bool
}

func snapshotsOf(image *rbd.Image) ([]snapshotInfo, error) {
	infos, err := image.GetSnapshotNames()
	if err != nil {
		return nil, err
	}
	var snapshots []snapshotInfo
	for _, info := range infos {
		s := snapshotInfo{id: info.Id, name: info.Name}
		namespace, err := image.GetSnapNamespaceType(info.Id)
		if err == nil && namespace == rbd.SnapNamespaceTypeTrash {
			s.trashed = true
			s.name, err = image.GetSnapTrashNamespace(info.Id)
		}
		if err != nil && errno.Of(err) != syscall.ENOENT { // removed since
			return nil, err
		}
		snapshots = append(snapshots, s)
	}
	return snapshots, nil
}

// CreateSnapshot implements rbdutil.Store.
//
// Similar to: rbd snap create POOL/IMAGE@SNAPSHOT; rbd snap protect POOL/IMAGE@SNAPSHOT
func (s *Store) CreateSnapshot(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, name string) error {
	// Not the whole image: many clones of it may be created at the same time.
	op := operation{name: "snapshot-create", image: rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "@" + name}}
	return s.do(ctx, op, c, func(conn *rados.Conn, pool *rados.IOContext) error {
		id, err := idOf(pool, ref.Name)
		if err != nil {
			return imageError("read the name of", ref, err)
		}
		if id == "" {
			return openError(pool, ref, rbd.ErrNotFound)
		}
		return s.withSnapshot(conn, rbdutil.SnapshotRef{Pool: ref.Pool, ImageID: id, Name: name}, func() error {
			return createSnapshot(pool, ref, id, name)
		})
	})
}

func createSnapshot(pool *rados.IOContext, ref rbdutil.ImageRef, id, name string) error {
	image, err := rbd.OpenImageById(pool, id, rbd.NoSnapshot)
	if err != nil {
		return openError(pool, ref, err)
	}
	defer closeImage(image)
	if _, err := image.CreateSnapshot(name); err != nil && errno.Of(err) != syscall.EEXIST {
		return imageError("create a snapshot of", ref, err)
	}
	// EBUSY: it is already protected, by an earlier attempt.
	if err := image.GetSnapshot(name).Protect(); err != nil && errno.Of(err) != syscall.EBUSY {
		return imageError("protect the snapshot of", ref, err)
	}
	return nil
}

// withSnapshot runs an operation that creates or removes a snapshot, or returns ErrInProgress
// while another one runs. Ceph would protect a snapshot whose removal has begun. Then neither
// the snapshot nor its image could ever be removed, as librbd unprotects snapshots by name,
// and a snapshot that is being removed has lost its name.
func (s *Store) withSnapshot(conn *rados.Conn, ref rbdutil.SnapshotRef, operation func() error) error {
	key := rbdutil.ImageRef{Pool: ref.Pool, Name: "snapshot/" + ref.ImageID + "@" + ref.Name}
	return s.withLock(conn, key, "snapshot "+ref.String(), operation)
}

// RemoveSnapshot implements rbdutil.Store.
//
// Similar to: rbd snap unprotect POOL/IMAGE@SNAPSHOT; rbd snap rm POOL/IMAGE@SNAPSHOT
func (s *Store) RemoveSnapshot(ctx context.Context, c rbdutil.Cluster, snapshot rbdutil.SnapshotRef) error {
	op := operation{name: "snapshot-remove", image: rbdutil.ImageRef{Pool: snapshot.Pool, Name: snapshot.ImageID + "@" + snapshot.Name}}
	return s.do(ctx, op, c, func(conn *rados.Conn, pool *rados.IOContext) error { return s.removeSnapshot(conn, pool, snapshot) })
}

// removeSnapshot removes a snapshot without clones. Ceph looks for clones in all pools.
func (s *Store) removeSnapshot(conn *rados.Conn, pool *rados.IOContext, ref rbdutil.SnapshotRef) error {
	return s.withSnapshot(conn, ref, func() error { return removeSnapshot(pool, ref) })
}

func removeSnapshot(pool *rados.IOContext, ref rbdutil.SnapshotRef) error {
	image, err := rbd.OpenImageById(pool, ref.ImageID, rbd.NoSnapshot)
	if err != nil {
		if errno.Of(err) == syscall.ENOENT && !exists(pool, headerOf(ref.ImageID)) {
			return nil
		}
		return removeSnapshotError(ref, err)
	}
	defer closeImage(image)
	snapshots, err := snapshotsOf(image)
	if err != nil {
		return removeSnapshotError(ref, err)
	}
	for _, s := range snapshots {
		switch {
		case s.name != ref.Name:
			continue
		case s.trashed:
			err = removeTrashedSnapshot(pool, ref.ImageID, s.id)
		default:
			err = unprotectAndRemove(image.GetSnapshot(s.name))
		}
		if err != nil {
			return removeSnapshotError(ref, err)
		}
	}
	return nil
}

// unprotectAndRemove removes a snapshot that may be protected, or may not exist.
func unprotectAndRemove(snapshot *rbd.Snapshot) error {
	protected, err := snapshot.IsProtected()
	if err == nil && protected {
		err = snapshot.Unprotect()
	}
	// EINVAL: it is not protected any more, as another client removes it, too.
	if err == nil || errno.Of(err) == syscall.EINVAL {
		err = snapshot.Remove()
	}
	if errno.Of(err) == syscall.ENOENT {
		return nil
	}
	return err
}

// removeTrashedSnapshot removes a snapshot whose removal was interrupted. Its name does not
// identify it any more, and go-ceph cannot remove a snapshot by its id.
//
// Similar to: rbd snap rm --snap-id ID POOL/IMAGE
func removeTrashedSnapshot(pool *rados.IOContext, imageID string, snapshotID uint64) error {
	id := C.CString(imageID)
	defer C.free(unsafe.Pointer(id))
	var image C.rbd_image_t
	if ret := C.rbd_open_by_id(C.rados_ioctx_t(pool.Pointer()), id, &image, nil); ret < 0 { //nolint:gocritic // in code that cgo generates
		return syscall.Errno(-ret)
	}
	defer C.rbd_close(image)
	if ret := C.rbd_snap_remove_by_id(image, C.uint64_t(snapshotID)); ret < 0 && syscall.Errno(-ret) != syscall.ENOENT {
		return syscall.Errno(-ret)
	}
	return nil
}

func removeSnapshotError(ref rbdutil.SnapshotRef, err error) error {
	return errno.Wrap("remove snapshot "+ref.String(), err, map[syscall.Errno]error{
		syscall.EBUSY: rbdutil.ErrHasClones,
	})
}

// A snapshot that is locked is tried again, because another removal may have found a clone that
// exists no more. It is kept if the lock lasts longer: then a new clone is created from it.
const (
	parentAttempts = 10
	parentPause    = 200 * time.Millisecond
)

// removeParentSnapshot removes the snapshot that an image was a clone of, if it is ours and has
// no other clones.
func (s *Store) removeParentSnapshot(conn *rados.Conn, parent *rbdutil.SnapshotRef) error {
	if parent == nil {
		return nil
	}
	if _, ours := rbdutil.CloneOf(parent.Name); !ours {
		return nil
	}
	remove := func(pool *rados.IOContext) error { return s.removeSnapshot(conn, pool, *parent) }
	err := cephconn.OnPool(conn, parent.Pool, remove)
	for n := 1; n < parentAttempts && errors.Is(err, rbdutil.ErrInProgress); n++ {
		time.Sleep(parentPause)
		err = cephconn.OnPool(conn, parent.Pool, remove)
	}
	if errors.Is(err, rbdutil.ErrHasClones) || errors.Is(err, rbdutil.ErrInProgress) || errors.Is(err, rbdutil.ErrPoolNotFound) {
		return nil
	}
	return err
}
