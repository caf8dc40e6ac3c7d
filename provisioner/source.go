package provisioner

import (
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
		return nil, refusal{explain(err, circumstances{image: s.image(), cloning: true})}
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
	if err := p.checkIdentity(volume); err != nil {
		return nil, err
	}
	return &source{claim, volume}, nil
}

func modeOf(claim *corev1.PersistentVolumeClaim) corev1.PersistentVolumeMode {
	return ptr.Deref(claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
}

func (s *source) image() rbdutil.ImageRef {
	return rbdutil.ImageRef{Pool: s.volume.Spec.RBD.RBDPool, Name: s.volume.Spec.RBD.RBDImage}
}

// unmounted reports whether the clone must be made of what no node has mounted: because
// its owner asks for that, or because every node that mounts it would have to recover its
// file system, several at a time.
func (s *source) unmounted(clone *corev1.PersistentVolumeClaim) bool {
	return readOnly(clone) || clone.Annotations[annCloneUnmounted] == "true"
}

// recorded is what the image of a clone says about its source. The clone can be finished
// with it when the source is gone.
func (s *source) recorded() rbdutil.SourceVolume {
	size := s.claim.Status.Capacity[corev1.ResourceStorage]
	return rbdutil.SourceVolume{
		VolumeName: s.volume.Name, FSType: s.volume.Spec.RBD.FSType, FSSize: uint64(max(bytesOf(size), 0)),
	}
}

// adaptClone makes a clone's volume one that nodes mount as it must be.
func adaptClone(volume *corev1.PersistentVolume, clone *corev1.PersistentVolumeClaim, source rbdutil.RecordedSource) {
	volume.Annotations[annClonedFrom] = source.VolumeName
	if modeOf(clone) == corev1.PersistentVolumeBlock {
		return
	}
	// The file system is there, whatever the class says of new ones.
	volume.Spec.RBD.FSType = source.FSType
	if source.FSType == "xfs" {
		// Or a node that has the source mounted takes the clone for the same.
		addMountOption(volume, "nouuid")
	}
	if readOnly(clone) {
		// The kubelet ignores readOnly of an rbd volume.
		addMountOption(volume, "ro")
	}
	// The source may have grown after its claim was read and before the snapshot, or the
	// other way round.
	fsSize := resource.NewQuantity(int64(min(source.FSSize, source.Size)), resource.BinarySI)
	if fsSize.Cmp(volume.Spec.Capacity[corev1.ResourceStorage]) < 0 && !readOnly(clone) {
		volume.Annotations[annPreResizeCapacity] = fsSize.String()
	}
}

// isGone reports whether the claim was deleted.
func (p *Provisioner) isGone(claim *corev1.PersistentVolumeClaim) bool {
	now, err := p.claims.PersistentVolumeClaims(claim.Namespace).Get(claim.Name)
	return apierrors.IsNotFound(err) || err == nil && now.UID != claim.UID
}

func addMountOption(volume *corev1.PersistentVolume, option string) {
	if !slices.Contains(volume.Spec.MountOptions, option) {
		volume.Spec.MountOptions = append(slices.Clone(volume.Spec.MountOptions), option)
	}
}
