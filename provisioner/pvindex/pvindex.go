// Package pvindex finds the PersistentVolumes that have an RBD image.
package pvindex

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// byImage is the index of PersistentVolumes by their images. Two volumes may have
// the same image. A volume with another name or driver may need the image of a deleted one.
const byImage = "image"

// Indexers returns the indexers that the cache of PersistentVolumes must have.
func Indexers() cache.Indexers {
	return cache.Indexers{byImage: func(obj any) ([]string, error) {
		volume, ok := obj.(*corev1.PersistentVolume)
		if !ok {
			return nil, fmt.Errorf("%T is not a PersistentVolume", obj)
		}
		var keys []string
		for _, ref := range Images(volume) {
			keys = append(keys, ref.String())
		}
		return keys, nil
	}}
}

// Images returns the images that a volume may show. The Ceph cluster is not compared: one
// cluster may have several sets of monitor addresses, so that a volume that seems to be in
// another cluster may show the same image.
func Images(volume *corev1.PersistentVolume) []rbdutil.ImageRef {
	switch spec := volume.Spec; {
	case spec.RBD != nil:
		return []rbdutil.ImageRef{{Pool: spec.RBD.RBDPool, Name: spec.RBD.RBDImage}}
	case spec.CSI != nil:
		return imagesOfCSI(spec.CSI)
	}
	return nil
}

// imagesOfCSI returns the images of volumes of ceph-csi: dynamic volumes, static volumes
// (their handle is the name of the image) and migrated ones. The driver is not compared,
// because its name can be configured.
func imagesOfCSI(source *corev1.CSIPersistentVolumeSource) []rbdutil.ImageRef {
	refs := imagesOfMigration(source.VolumeHandle)
	if pool := source.VolumeAttributes["pool"]; pool != "" {
		for _, name := range []string{source.VolumeAttributes["imageName"], source.VolumeHandle} {
			if name != "" {
				refs = append(refs, rbdutil.ImageRef{Pool: pool, Name: name})
			}
		}
	}
	slices.SortFunc(refs, func(a, b rbdutil.ImageRef) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(refs)
}

// imagesOfMigration parses the handle that csi-translation-lib gives an in-tree volume:
// mig_mons-MD5_image-NAME_POOL. The pool is in hexadecimal. NAME lacks the prefix of our
// images, if it had one.
func imagesOfMigration(handle string) []rbdutil.ImageRef {
	rest, ok := strings.CutPrefix(handle, "mig_mons-")
	if !ok {
		return nil
	}
	_, rest, ok = strings.Cut(rest, "_image-")
	end := strings.LastIndex(rest, "_")
	if !ok || end < 0 {
		return nil
	}
	pool, err := hex.DecodeString(rest[end+1:])
	if err != nil {
		return nil
	}
	return []rbdutil.ImageRef{
		{Pool: string(pool), Name: rbdutil.ImageName(rest[:end])},
		{Pool: string(pool), Name: rest[:end]},
	}
}

// Volumes returns the volumes that may have the image, sorted by name.
func Volumes(index cache.Indexer, ref rbdutil.ImageRef) ([]*corev1.PersistentVolume, error) {
	objects, err := index.ByIndex(byImage, ref.String())
	if err != nil {
		return nil, fmt.Errorf("look up the volumes of image %s: %w", ref, err)
	}
	var volumes []*corev1.PersistentVolume
	for _, object := range objects {
		if volume, ok := object.(*corev1.PersistentVolume); ok {
			volumes = append(volumes, volume)
		}
	}
	slices.SortFunc(volumes, func(a, b *corev1.PersistentVolume) int { return strings.Compare(a.Name, b.Name) })
	return volumes, nil
}

// IsDeletable reports whether the volume is about to be deleted together with its image.
func IsDeletable(volume *corev1.PersistentVolume) bool {
	return volume.Status.Phase == corev1.VolumeReleased &&
		volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
}
