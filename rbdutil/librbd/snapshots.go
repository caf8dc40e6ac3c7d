package librbd

// #cgo LDFLAGS: -lrbd
// #include <stdlib.h>
// #include <rbd/librbd.h>
import "C"

import (
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// snapshot is a snapshot of an image. Ceph moves one that is removed into a namespace of
// its own first, under another name: there, too, it has here the name that it had.
type snapshot struct {
	id      uint64
	name    string
	trashed bool
}

func snapshotsOf(image *rbd.Image) ([]snapshot, error) {
	infos, err := image.GetSnapshotNames()
	if err != nil {
		return nil, err
	}
	var snapshots []snapshot
	for _, info := range infos {
		s := snapshot{id: info.Id, name: info.Name}
		namespace, err := image.GetSnapNamespaceType(info.Id)
		if err == nil && namespace == rbd.SnapNamespaceTypeTrash {
			s.trashed = true
			s.name, err = image.GetSnapTrashNamespace(info.Id)
		}
		if err != nil && errnoOf(err) != syscall.ENOENT { // gone meanwhile
			return nil, err
		}
		snapshots = append(snapshots, s)
	}
	return snapshots, nil
}

// removeTrashed removes a snapshot that was being removed when somebody was cut off. By
// its name it cannot be reached any more, and go-ceph knows it by no other.
//
// Similar to: rbd snap rm --snap-id ID POOL/IMAGE
func removeTrashed(pool *rados.IOContext, imageID string, snapshotID uint64) error {
	id := C.CString(imageID)
	defer C.free(unsafe.Pointer(id))
	var image C.rbd_image_t
	if ret := C.rbd_open_by_id(C.rados_ioctx_t(pool.Pointer()), id, &image, nil); ret < 0 { //nolint:gocritic // of what cgo makes of it
		return syscall.Errno(-ret)
	}
	defer C.rbd_close(image)
	if ret := C.rbd_snap_remove_by_id(image, C.uint64_t(snapshotID)); ret < 0 && syscall.Errno(-ret) != syscall.ENOENT {
		return syscall.Errno(-ret)
	}
	return nil
}
