package rbdfake

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// What others do to the cluster while the code under test is not looking.

// AddPool creates a pool.
func (f *Ceph) AddPool(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pools[name] = true
}

// DeletePool deletes a pool with all its images.
func (f *Ceph) DeletePool(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pools, name)
	for _, images := range []map[rbdutil.ImageRef]*image{f.images, f.trash} {
		for ref := range images {
			if ref.Pool == name {
				delete(images, ref)
			}
		}
	}
}

// Put stores an image as somebody else made it.
func (f *Ceph) Put(img rbdutil.Image) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if img.ObjectSize == 0 {
		img.ObjectSize = rbdutil.DefaultObjectSize
	}
	if img.ID == "" {
		img.ID = f.newID()
	}
	f.images[img.ImageRef] = &image{Image: img}
}

// Change lets the caller alter an image that is there.
func (f *Ceph) Change(ref rbdutil.ImageRef, change func(*rbdutil.Image)) error {
	return f.change(ref, func(img *image) { change(&img.Image) })
}

// change alters an image that is there, with what rbdutil.Image does not show.
func (f *Ceph) change(ref rbdutil.ImageRef, change func(*image)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	img, err := f.find(ref)
	if err != nil {
		return err
	}
	change(img)
	return nil
}

// Write puts data into an image, as a node does that has mounted it.
func (f *Ceph) Write(ref rbdutil.ImageRef) error {
	return f.change(ref, func(img *image) {
		img.written = true
		for _, s := range img.snapshots {
			s.overwritten = true
		}
	})
}

// SetRecord sets the text of the image's record (`rbd image-meta set`).
func (f *Ceph) SetRecord(ref rbdutil.ImageRef, value string) error {
	return f.change(ref, func(img *image) { img.Record, img.RecordError = rbdutil.DecodeRecord(value) })
}

// Group makes an image the member of a group (`rbd group image add`).
func (f *Ceph) Group(ref rbdutil.ImageRef) error {
	return f.change(ref, func(img *image) { img.Group = ref.Name + "-group" })
}

// Lock sets a lock on an image (`rbd lock add`).
func (f *Ceph) Lock(ref rbdutil.ImageRef) error {
	return f.change(ref, func(img *image) { img.Locks = append(img.Locks, "maintenance client.4242") })
}

// Mirror mirrors an image to another cluster (`rbd mirror image enable`).
func (f *Ceph) Mirror(ref rbdutil.ImageRef) error {
	return f.change(ref, func(img *image) { img.Mirrored = true })
}

// Migrate prepares the migration of an image to another name, and returns that name
// (`rbd migration prepare`). The source goes to the trash and has no name any more.
func (f *Ceph) Migrate(ref rbdutil.ImageRef) (rbdutil.ImageRef, error) {
	to := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-migrated"}
	return to, f.change(ref, func(img *image) {
		target := img.Image
		target.ImageRef, target.ID = to, f.newID()
		target.Features |= migrating
		f.images[to] = &image{Image: target, written: img.written}
		img.Features |= migrating
		img.migrationSource = true
		f.moveToTrash(img, 0)
	})
}

// TrashByHand moves an image to the trash without a change of its record (`rbd trash mv`).
func (f *Ceph) TrashByHand(ref rbdutil.ImageRef) error {
	return f.change(ref, func(img *image) { f.moveToTrash(img, 0) })
}

// ExpireTrash lets the time pass for which images of that name are kept in the trash.
func (f *Ceph) ExpireTrash(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, img := range f.trash {
		if img.Name == name {
			img.keepUntil = f.now().Add(-time.Second)
		}
	}
}

// LeavePartial takes an image away but leaves its name behind, as a client does
// that dies in the middle of creating or removing it.
func (f *Ceph) LeavePartial(ref rbdutil.ImageRef) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[ref] = &image{Image: rbdutil.Image{ImageRef: ref}, remains: true}
	return nil
}

// Names lists all images and remains as POOL/NAME, sorted, as `rbd ls` would.
func (f *Ceph) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := make([]string, 0, len(f.images))
	for ref := range f.images {
		names = append(names, fmt.Sprint(ref))
	}
	slices.SortFunc(names, strings.Compare)
	return names
}
