package provisioner

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// source is what a clone begins with.
type source struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
}

// sourceOf returns what the claim is to be a clone of, nil for nothing, or says why there
// can be no such clone. Whether the image fits is for Ceph to tell.
func (p *Provisioner) sourceOf(claim *corev1.PersistentVolumeClaim, params parameters, size uint64) (*source, error) {
	name := sourceName(claim)
	if name == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	s, err := p.boundSource(claim.Namespace, name)
	if err != nil {
		return nil, err
	}
	capacity := s.volume.Spec.Capacity[corev1.ResourceStorage]
	switch mode := modeOf(claim); {
	case modeOf(s.claim) != mode:
		return nil, refusef("source claim %s has volumeMode %s, and a clone must have the same", name, modeOf(s.claim))
	case !params.layout.Features.Has(rbdutil.Layering):
		return nil, refusef("imageFeatures of the class has no %s, without which Ceph makes no clones: choose another class", rbdutil.Layering)
	case mode == corev1.PersistentVolumeFilesystem && s.volume.Spec.RBD.FSType == "btrfs":
		return nil, refusef("source claim %s has file system btrfs, of which no node may see two copies", name)
	case readOnly(claim) && mode == corev1.PersistentVolumeBlock:
		return nil, refusef("nothing would keep nodes from writing to a block volume with access mode ReadOnlyMany: ask for ReadWriteOnce, or for volumeMode Filesystem")
	case readOnly(claim) && size > uint64(max(bytesOf(capacity), 0)):
		return nil, refusef("a clone with access mode ReadOnlyMany must have the size of its source, %s, as nobody could grow its file system", capacity.String())
	}
	if !s.unmounted(claim) {
		return s, nil
	}
	if err := p.checkNodes(s.image()); err != nil {
		return nil, refusal{explain(err, circumstances{cloning: true})}
	}
	return s, nil
}

// boundSource finds the claim of that name and its volume, which must be ours.
func (p *Provisioner) boundSource(namespace, name string) (*source, error) {
	claim, err := p.claims.PersistentVolumeClaims(namespace).Get(name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, refusef("source claim %s does not exist in namespace %s: the clone is made when it is there and bound", name, namespace)
	case err != nil:
		return nil, refusef("read source claim %s: %w", name, err)
	case claim.DeletionTimestamp != nil:
		return nil, refusef("source claim %s is being deleted", name)
	case claim.Status.Phase != corev1.ClaimBound:
		return nil, refusef("source claim %s is not bound yet: the clone is made when it is", name)
	}
	volume, err := p.volumes.Get(claim.Spec.VolumeName)
	switch {
	case err != nil:
		return nil, refusef("read volume %s of source claim %s: %w", claim.Spec.VolumeName, name, err)
	case volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID:
		return nil, refusef("volume %s of source claim %s is bound to another", volume.Name, name)
	case volume.Annotations[annProvisionedBy] != p.name || volume.Spec.RBD == nil:
		return nil, refusef("volume %s of source claim %s is not of this provisioner, which clones its own volumes only", volume.Name, name)
	}
	return &source{claim, volume}, nil
}

func modeOf(claim *corev1.PersistentVolumeClaim) corev1.PersistentVolumeMode {
	return ptr.Deref(claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
}

func (s *source) image() rbdutil.ImageRef {
	return rbdutil.ImageRef{Pool: s.volume.Spec.RBD.RBDPool, Name: s.volume.Spec.RBD.RBDImage}
}

// unmounted tells whether the clone must be made of what no node has mounted: because
// somebody wants it so, or because every node that mounts it would have to recover its
// file system, several at a time.
func (s *source) unmounted(clone *corev1.PersistentVolumeClaim) bool {
	return readOnly(clone) || clone.Annotations[annCloneUnmounted] == "true"
}

// adapt makes a clone's volume one that nodes mount as it must be. The size, in bytes, is
// that of the source when the clone was made of it.
func (s *source) adapt(volume *corev1.PersistentVolume, clone *corev1.PersistentVolumeClaim, size uint64) {
	volume.Annotations[annClonedFrom] = s.volume.Name
	if modeOf(clone) == corev1.PersistentVolumeBlock {
		return
	}
	// The file system is there, whatever the class says of new ones.
	fsType := s.volume.Spec.RBD.FSType
	volume.Spec.RBD.FSType = fsType
	if fsType == "xfs" {
		// Or a node that has the source mounted takes the clone for the same.
		addMountOption(volume, "nouuid")
	}
	if readOnly(clone) {
		// The kubelet pays no attention to readOnly of an rbd volume.
		addMountOption(volume, "ro")
	}
	has, capacity := s.claim.Status.Capacity[corev1.ResourceStorage], volume.Spec.Capacity[corev1.ResourceStorage]
	if then := *resource.NewQuantity(int64(size), resource.BinarySI); size > 0 && then.Cmp(has) < 0 {
		has = then // the source has grown since
	}
	if has.Cmp(capacity) < 0 && !readOnly(clone) {
		volume.Annotations[annPreResizeCapacity] = has.String()
	}
}

// isGone tells whether the claim is not there any more.
func (p *Provisioner) isGone(claim *corev1.PersistentVolumeClaim) bool {
	now, err := p.claims.PersistentVolumeClaims(claim.Namespace).Get(claim.Name)
	return apierrors.IsNotFound(err) || err == nil && now.UID != claim.UID
}

// IsClone tells whether the volume is a clone's, and HandOut has something to do.
func IsClone(volume *corev1.PersistentVolume) bool {
	return volume.Annotations[annClonedFrom] != "" && volume.Spec.RBD != nil
}

// HandOut notes on the image of a clone that its volume is there. From then on it is
// somebody's, even if nobody writes to it and the volume is deleted without its image.
func (p *Provisioner) HandOut(ctx context.Context, volume *corev1.PersistentVolume) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	cluster, _, err := p.clusterOf(ctx, volume)
	if err != nil {
		return err
	}
	return p.images.HandOut(ctx, cluster, rbdutil.ImageRef{Pool: volume.Spec.RBD.RBDPool, Name: volume.Spec.RBD.RBDImage})
}

func addMountOption(volume *corev1.PersistentVolume, option string) {
	if !slices.Contains(volume.Spec.MountOptions, option) {
		volume.Spec.MountOptions = append(slices.Clone(volume.Spec.MountOptions), option)
	}
}
