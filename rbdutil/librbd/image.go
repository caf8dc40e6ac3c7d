package librbd

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func setLayout(opts *rbd.ImageOptions, layout rbdutil.Layout) error {
	if err := opts.SetUint64(rbd.ImageOptionFormat, 2); err != nil {
		return err
	}
	if err := opts.SetUint64(rbd.ImageOptionFeatures, uint64(layout.Features)); err != nil {
		return err
	}
	if layout.ObjectSize != 0 {
		order := uint64(bits.TrailingZeros64(layout.ObjectSize))
		if err := opts.SetUint64(rbd.ImageOptionOrder, order); err != nil {
			return err
		}
	}
	if layout.DataPool != "" {
		return opts.SetString(rbd.ImageOptionDataPool, layout.DataPool)
	}
	return nil
}

func describe(image *rbd.Image, ref rbdutil.ImageRef) (rbdutil.Image, error) {
	stat, err := image.Stat()
	if err != nil {
		return rbdutil.Image{}, err
	}
	features, err := image.GetFeatures()
	if err != nil {
		return rbdutil.Image{}, err
	}
	metadata, err := image.ListMetadata()
	if err != nil {
		return rbdutil.Image{}, err
	}
	id, err := image.GetId()
	if err != nil && errnoOf(err) != syscall.EINVAL { // which is what one of format 1 says
		return rbdutil.Image{}, err
	}
	parent, err := parentOf(image)
	if err != nil {
		return rbdutil.Image{}, err
	}
	img := rbdutil.Image{
		ImageRef: ref, ID: id, Size: stat.Size, ObjectSize: stat.Obj_size,
		Features: rbdutil.Features(features), Metadata: metadata, Parent: parent,
	}
	watchers, err := image.ListWatchers()
	if err != nil {
		return rbdutil.Image{}, err
	}
	for _, w := range watchers {
		img.Watchers = append(img.Watchers, w.Addr)
	}
	snapshots, err := snapshotsOf(image)
	if err != nil {
		return rbdutil.Image{}, err
	}
	foreign := false
	for _, s := range snapshots {
		img.Snapshots = append(img.Snapshots, s.name)
		_, ours := rbdutil.CloneOf(s.name)
		foreign = foreign || !ours
	}
	if foreign { // Ceph goes through all pools for each snapshot
		img.Clones, err = clonesOf(image)
	}
	return img, err
}

// withoutOwn leaves out what this client itself has open for a moment: for a snapshot,
// say, of an image that is asked about at the same time.
func withoutOwn(conn *rados.Conn, watchers []string) []string {
	own, err := conn.GetAddrs()
	if err != nil {
		return watchers
	}
	return slices.DeleteFunc(watchers, func(watcher string) bool { return watcher != "" && strings.Contains(own, watcher) })
}

// clonesOf names the clones of all snapshots. Those in pools that the user may not
// read have none.
func clonesOf(image *rbd.Image) ([]string, error) {
	children, err := image.ListChildrenAttributes()
	if errno := errnoOf(err); errno == syscall.EPERM || errno == syscall.EACCES {
		return nil, nil
	}
	var clones []string
	for _, child := range children {
		name := child.PoolName + "/" + child.ImageName
		if child.Trash {
			name += " (in the trash)"
		}
		clones = append(clones, name)
	}
	return clones, err
}

// grow sets the image's size, in bytes, unless it has it already. It never shrinks.
func grow(image *rbd.Image, ref rbdutil.ImageRef, size uint64) error {
	now, err := image.GetSize()
	if err != nil {
		return imageError("read", ref, err)
	}
	switch {
	case now == size:
		return nil
	case now > size:
		return fmt.Errorf("resize image %s: %w: from %d to %d bytes it would shrink", ref, rbdutil.ErrInvalid, now, size)
	}
	const allowShrink = false
	progress := func(uint64, uint64, interface{}) int { return 0 }
	if err := image.Resize2(size, allowShrink, progress, nil); err != nil {
		return imageError("resize", ref, err)
	}
	return nil
}

// written tells whether the image has any data of its own, or any that came since a
// snapshot.
func written(image *rbd.Image, since string) (bool, error) {
	size, err := image.GetSize()
	if err != nil || size == 0 {
		return false, err
	}
	found := false
	err = image.DiffIterate(rbd.DiffIterateConfig{
		SnapName: since, Offset: 0, Length: size, IncludeParent: rbd.ExcludeParent, WholeObject: rbd.EnableWholeObject,
		Callback: func(_, _ uint64, exists int, _ interface{}) int {
			// What was discarded since a snapshot does not exist, but has changed.
			found = found || exists != 0 || since != ""
			if found {
				return -int(syscall.ECANCELED) // one is enough
			}
			return 0
		},
	})
	if found {
		return true, nil
	}
	return false, err
}

// closeImage ends the use of an image. There is nothing that a caller could do
// about an error: whatever was to be written has been acknowledged by then.
func closeImage(image *rbd.Image) { _ = image.Close() }
