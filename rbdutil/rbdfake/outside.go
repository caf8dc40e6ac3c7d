package rbdfake

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// What other clients do to the cluster.

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

// Put stores an image that another client created.
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

// Change changes an existing image.
func (f *Ceph) Change(ref rbdutil.ImageRef, change func(*rbdutil.Image)) error {
	return f.change(ref, func(img *image) { change(&img.Image) })
}

// change changes an existing image, with the fields that rbdutil.Image does not have.
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

// Write writes data to an image, as a node does that has mounted it.
func (f *Ceph) Write(ref rbdutil.ImageRef) error {
	return f.change(ref, func(img *image) {
		img.written = true
		for _, s := range img.snapshots {
			s.overwritten = true
		}
	})
}

// SetRecord sets the metadata value of the image's record (`rbd image-meta set`).
func (f *Ceph) SetRecord(ref rbdutil.ImageRef, value string) error {
	return f.change(ref, func(img *image) { img.Record, img.RecordError = rbdutil.DecodeRecord(value) })
}

// Group adds an image to a group (`rbd group image add`).
func (f *Ceph) Group(ref rbdutil.ImageRef) error {
	return f.change(ref, func(img *image) { img.Group = ref.Name + "-group" })
}

// Lock adds a lock to an image (`rbd lock add`).
func (f *Ceph) Lock(ref rbdutil.ImageRef) error {
	return f.change(ref, func(img *image) { img.Locks = append(img.Locks, "maintenance client.4242") })
}

// Mirror mirrors an image to another cluster (`rbd mirror image enable`).
func (f *Ceph) Mirror(ref rbdutil.ImageRef) error {
	return f.change(ref, func(img *image) { img.Mirrored = true })
}

// Migrate prepares the migration of an image to another name, and returns that name
// (`rbd migration prepare`). The source is moved to the trash and loses its name.
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

// ExpireTrash lets the entries of that name in the trash expire.
func (f *Ceph) ExpireTrash(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, img := range f.trash {
		if img.Name == name {
			img.keepUntil = f.now().Add(-time.Second)
		}
	}
}

// LeavePartial replaces an image by its name only, as a client leaves it that is killed during
// a creation or removal.
func (f *Ceph) LeavePartial(ref rbdutil.ImageRef) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[ref] = &image{Image: rbdutil.Image{ImageRef: ref}, partial: true}
	return nil
}

// Names lists all images, including partial ones, as POOL/NAME, sorted.
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
