package librbd

import (
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/cephconn"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// identify reads from an open image what rbdutil.Image.Same compares.
func identify(image *rbd.Image, ref rbdutil.ImageRef) (rbdutil.Image, recordText, error) {
	size, err := image.GetSize()
	if err != nil {
		return rbdutil.Image{}, nil, err
	}
	id, err := image.GetId()
	if err != nil && errno.Of(err) != syscall.EINVAL { // an image of format 1 has no id
		return rbdutil.Image{}, nil, err
	}
	text, err := readRecord(image)
	if err != nil {
		return rbdutil.Image{}, nil, err
	}
	img := rbdutil.Image{ImageRef: ref, ID: id, Size: size}
	img.Record, img.RecordError = decode(text)
	return img, text, nil
}

// describe reads the other fields that rbdutil.Store.Get returns, except the watchers.
func describe(image *rbd.Image, img *rbdutil.Image) error {
	stat, err := image.Stat()
	if err != nil {
		return err
	}
	features, err := image.GetFeatures()
	if err != nil {
		return err
	}
	img.ObjectSize, img.Features = stat.Obj_size, rbdutil.Features(features)
	if img.Parent, err = parentOf(image); err != nil {
		return err
	}
	snapshots, err := snapshotsOf(image)
	if err != nil {
		return err
	}
	foreign := false
	for _, s := range snapshots {
		img.Snapshots = append(img.Snapshots, s.name)
		_, ours := rbdutil.CloneOf(s.name)
		foreign = foreign || !ours
	}
	if foreign { // Ceph searches all pools for each snapshot
		img.Clones = clonesOf(image)
	}
	return nil
}

// watchersOf returns the addresses of the other clients that have the image mapped or open
// for writing. own is how often this client has it open for writing.
func watchersOf(conn *rados.Conn, image *rbd.Image) (others []string, own int, err error) {
	watchers, err := image.ListWatchers()
	if err != nil {
		return nil, 0, err
	}
	addresses, err := conn.GetAddrs()
	if err != nil {
		return nil, 0, err
	}
	for _, w := range watchers {
		if cephconn.IsOwn(addresses, w.Addr) {
			own++
		} else {
			others = append(others, w.Addr)
		}
	}
	return others, own, nil
}

// clonesOf returns the clones of all snapshots, if the user may see them. They are only used
// in an error, so a failure to list them is ignored. go-ceph lists 4,096 at most
// (ceph/go-ceph#1319), and Ceph none if one of them was removed.
func clonesOf(image *rbd.Image) []string {
	children, err := image.ListChildrenAttributes()
	if err != nil {
		return nil
	}
	var clones []string
	for _, child := range children {
		name := child.PoolName + "/" + child.ImageName
		if child.Trash {
			name += " (in the trash)"
		}
		clones = append(clones, name)
	}
	return clones
}

// update changes an image if it is the one seen.
func update(pool *rados.IOContext, seen rbdutil.Image, record *rbdutil.Record, size uint64) error {
	ref := seen.ImageRef
	image, err := rbd.OpenImage(pool, ref.Name, rbd.NoSnapshot)
	if err != nil {
		return openError(pool, ref, err)
	}
	defer closeImage(image)
	now, _, err := identify(image, ref)
	switch {
	case err != nil:
		return imageError("read", ref, err)
	case !now.Same(seen):
		return changedError(now, seen)
	case size < now.Size:
		return fmt.Errorf("resize image %s: %w: the size cannot be reduced from %d to %d bytes", ref, rbdutil.ErrInvalid, now.Size, size)
	case size > now.Size:
		// Ceph checks locks only if the image has the feature exclusive-lock.
		if err := checkUnlocked(pool, now); err != nil {
			return err
		}
	}
	if record != nil {
		text := *record
		text.ImageID = now.ID
		if err := writeRecord(image, encode(text)); err != nil {
			return writeError(pool, "set metadata of", now, err)
		}
	}
	if size == now.Size {
		return nil
	}
	const allowShrink = false
	progress := func(uint64, uint64, interface{}) int { return 0 }
	return writeError(pool, "resize", now, image.Resize2(size, allowShrink, progress, nil))
}

// changedError names the difference between an image and the one seen.
func changedError(now, seen rbdutil.Image) error {
	what := "its record is different"
	switch {
	case now.ID != seen.ID && now.ID != "" && seen.ID != "":
		what = fmt.Sprintf("another image has the name now, with id %s instead of %s", now.ID, seen.ID)
	case now.Size != seen.Size:
		what = fmt.Sprintf("its size is %d bytes, not %d", now.Size, seen.Size)
	}
	return fmt.Errorf("%w: %s: %s", rbdutil.ErrChanged, now.ImageRef, what)
}

// hasChanges reports whether the image has data of its own, or any since a snapshot.
func hasChanges(image *rbd.Image, since string) (bool, error) {
	size, err := image.GetSize()
	if err != nil || size == 0 {
		return false, err
	}
	found := false
	err = image.DiffIterate(rbd.DiffIterateConfig{
		SnapName: since, Offset: 0, Length: size, IncludeParent: rbd.ExcludeParent, WholeObject: rbd.EnableWholeObject,
		Callback: func(_, _ uint64, exists int, _ interface{}) int {
			// An extent that was discarded since the snapshot does not exist, but has changed.
			found = found || exists != 0 || since != ""
			if found {
				return -int(syscall.ECANCELED) // one extent suffices
			}
			return 0
		},
	})
	if found {
		return true, nil
	}
	return false, err
}

// closeImage closes an image. A caller could not handle an error: all writes were
// acknowledged before.
func closeImage(image *rbd.Image) { _ = image.Close() }
