package librbd

// #cgo LDFLAGS: -lrbd
// #include <stdlib.h>
// #include <rbd/librbd.h>
import "C"

import (
	"syscall"
	"time"
	"unsafe"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// firstTrashRequest is the number of entries that the first request asks for.
const firstTrashRequest = 1024

// listTrash lists a pool's trash, whatever its length. go-ceph's GetTrashList fails for more
// than 10,240 entries (ceph/go-ceph#779).
//
// Similar to: rbd trash ls --all POOL
func listTrash(pool *rados.IOContext) ([]rbdutil.TrashedImage, error) {
	for count := C.size_t(firstTrashRequest); ; {
		entries := make([]C.rbd_trash_image_info_t, count)
		// If there are more, Ceph returns their number, which may grow before the next call.
		ret := C.rbd_trash_list(C.rados_ioctx_t(pool.Pointer()), &entries[0], &count)
		if ret < 0 && syscall.Errno(-ret) == syscall.ERANGE && count > C.size_t(len(entries)) {
			continue
		}
		if ret < 0 {
			return nil, syscall.Errno(-ret)
		}
		defer C.rbd_trash_list_cleanup(&entries[0], count)
		trashed := make([]rbdutil.TrashedImage, 0, count)
		for _, entry := range entries[:count] {
			trashed = append(trashed, trashedImage(entry))
		}
		return trashed, nil
	}
}

// findTrashed returns the entry of an image in a pool's trash; nil if there is none.
func findTrashed(pool *rados.IOContext, id string) (*rbdutil.TrashedImage, error) {
	cID := C.CString(id)
	defer C.free(unsafe.Pointer(cID))
	var entry C.rbd_trash_image_info_t
	ret := C.rbd_trash_get(C.rados_ioctx_t(pool.Pointer()), cID, &entry) //nolint:gocritic // in code that cgo generates
	switch {
	case syscall.Errno(-ret) == syscall.ENOENT:
		return nil, nil //nolint:nilnil // there is none
	case ret < 0:
		return nil, syscall.Errno(-ret)
	}
	defer C.rbd_trash_get_cleanup(&entry) //nolint:gocritic // in code that cgo generates
	img := trashedImage(entry)
	return &img, nil
}

func trashedImage(entry C.rbd_trash_image_info_t) rbdutil.TrashedImage {
	return rbdutil.TrashedImage{
		ID: C.GoString(entry.id), Name: C.GoString(entry.name),
		Trashed:   time.Unix(int64(entry.deletion_time), 0),
		KeepUntil: time.Unix(int64(entry.deferment_end_time), 0),
		Migrating: entry.source == C.RBD_TRASH_IMAGE_SOURCE_MIGRATION,
	}
}
