package rbdfake

import (
	"fmt"
	"slices"
	"strings"

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
	for ref := range f.images {
		if ref.Pool == name {
			delete(f.images, ref)
		}
	}
}

// Put stores an image as somebody else made it.
func (f *Ceph) Put(img rbdutil.Image) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if img.Metadata == nil {
		img.Metadata = map[string]string{}
	}
	if img.ObjectSize == 0 {
		img.ObjectSize = defaultObjectSize
	}
	if img.ID == "" {
		img.ID = f.newID()
	}
	f.images[img.ImageRef] = &image{Image: img}
}

// Change lets the caller alter an image that is there.
func (f *Ceph) Change(ref rbdutil.ImageRef, change func(*rbdutil.Image)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	img, err := f.find(ref)
	if err != nil {
		return err
	}
	change(&img.Image)
	return nil
}

// Write puts data into an image, as a node does that has mounted it.
func (f *Ceph) Write(ref rbdutil.ImageRef) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	img, err := f.find(ref)
	if err != nil {
		return err
	}
	img.written = true
	for _, s := range img.snapshots {
		s.overwritten = true
	}
	return nil
}

// Group makes an image the member of a group.
func (f *Ceph) Group(ref rbdutil.ImageRef) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	img, err := f.find(ref)
	if err != nil {
		return err
	}
	img.grouped = true
	return nil
}

// LeaveRemains takes an image away but leaves its name behind, as a client does
// that dies in the middle of creating or removing it.
func (f *Ceph) LeaveRemains(ref rbdutil.ImageRef) error {
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
