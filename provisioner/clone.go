package provisioner

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// cloneSource returns the image to clone, or nil if the claim asks for an empty volume.
// Whether the image itself can be cloned is checked later, in Ceph.
func (p *Provisioner) cloneSource(params storageclass.Parameters, req request) (*rbdutil.Source, error) {
	if req.source == "" {
		return nil, nil //nolint:nilnil // an empty volume has no source
	}
	claim, volume, err := p.boundSource(req.Namespace, req.source)
	if err != nil {
		return nil, err
	}
	capacity := volume.Spec.Capacity[corev1.ResourceStorage]
	switch {
	case volumeMode(claim) != req.mode:
		return nil, preflightf("source claim %s has volumeMode %s, and a clone must have the same", req.source, volumeMode(claim))
	case !params.Layout.Features.Has(rbdutil.Layering):
		return nil, preflightf("imageFeatures of the class lacks %s, which clones require: use another class", rbdutil.Layering)
	case req.mode == corev1.PersistentVolumeFilesystem && volume.Spec.RBD.FSType == "btrfs":
		return nil, preflightf("source claim %s has file system btrfs, of which a node cannot mount two copies", req.source)
	case req.readOnly && req.mode == corev1.PersistentVolumeBlock:
		return nil, preflightf("nodes do not enforce access mode ReadOnlyMany on block volumes: request ReadWriteOnce, or volumeMode Filesystem")
	case req.readOnly && req.size > unsignedBytes(capacity):
		return nil, preflightf("a clone with access mode ReadOnlyMany must have the size of its source, %s, because its file system cannot be expanded", capacity.String())
	}
	if req.unmounted {
		if err := p.checkNodes(imageOf(volume)); err != nil {
			return nil, preflightError{withHint(err, errorContext{image: imageOf(volume), cloning: true})}
		}
	}
	return &rbdutil.Source{
		ImageRef: imageOf(volume),
		Volume: rbdutil.SourceVolume{
			VolumeName: volume.Name, FSType: volume.Spec.RBD.FSType, FSSize: unsignedBytes(claim.Status.Capacity[corev1.ResourceStorage]),
		},
		Precondition: p.Clusters.precondition(volume),
		Unmounted:    req.unmounted,
	}, nil
}

func unsignedBytes(q resource.Quantity) uint64 { return uint64(max(storageclass.Bytes(q), 0)) }

// boundSource returns the claim of that name and its volume, which this provisioner must
// have created.
func (p *Provisioner) boundSource(namespace, name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume, error) {
	claim, err := p.Claims.PersistentVolumeClaims(namespace).Get(name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil, preflightf("source claim %s does not exist in namespace %s: the clone will be created when the source claim is bound", name, namespace)
	case err != nil:
		return nil, nil, preflightf("read source claim %s: %w", name, err)
	case claim.DeletionTimestamp != nil:
		return nil, nil, preflightf("source claim %s is being deleted", name)
	case claim.Status.Phase != corev1.ClaimBound:
		return nil, nil, preflightf("source claim %s is not bound: the clone will be created when it is", name)
	}
	volume, err := p.Volumes.Get(claim.Spec.VolumeName)
	switch {
	case err != nil:
		return nil, nil, preflightf("read volume %s of source claim %s: %w", claim.Spec.VolumeName, name, err)
	case volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID:
		return nil, nil, preflightf("volume %s of source claim %s is bound to another claim", volume.Name, name)
	case !p.Clusters.IsManaged(volume):
		return nil, nil, preflightf("volume %s of source claim %s was not created by this provisioner, which clones only its own volumes", volume.Name, name)
	}
	return claim, volume, p.Clusters.CheckIdentity(volume)
}

// resumeClone completes a clone that an earlier call has begun. It is called if the
// source cannot be used any more, for the reason given: the image's record suffices.
func (p *Provisioner) resumeClone(ctx context.Context, spec rbdutil.ImageSpec, req request, known errorContext, reason error) (rbdutil.Image, error) {
	img, err := p.Images.ResumeClone(ctx, known.cluster, spec.ImageRef, spec.Owner)
	switch {
	case err == nil:
		return img, nil
	case errors.Is(err, rbdutil.ErrIncomplete):
		return rbdutil.Image{}, withHint(err, known)
	case errors.Is(err, rbdutil.ErrImageNotFound) && p.isGone(req):
		return rbdutil.Image{}, abandonedError{reason}
	}
	return rbdutil.Image{}, reason
}

// isGone reports whether the claim was deleted.
func (p *Provisioner) isGone(req request) bool {
	now, err := p.Claims.PersistentVolumeClaims(req.Namespace).Get(req.Name)
	return apierrors.IsNotFound(err) || err == nil && now.UID != req.uid
}

// adaptClone changes the volume of a clone so that nodes can mount it.
func adaptClone(volume *corev1.PersistentVolume, req request, source rbdutil.RecordedSource) {
	volume.Annotations[annClonedFrom] = source.VolumeName
	if req.mode == corev1.PersistentVolumeBlock {
		return
	}
	// The clone has the file system of its source, not that of the class.
	volume.Spec.RBD.FSType = source.FSType
	if source.FSType == "xfs" {
		// Both file systems have the same UUID. A node with the source mounted would refuse
		// the clone.
		addMountOption(volume, "nouuid")
	}
	if req.readOnly {
		// The kubelet ignores readOnly of an rbd volume.
		addMountOption(volume, "ro")
		return
	}
	// The source may have been expanded between the reading of its claim and the snapshot.
	fsSize := resource.NewQuantity(int64(min(source.FSSize, source.Size)), resource.BinarySI)
	if fsSize.Cmp(volume.Spec.Capacity[corev1.ResourceStorage]) < 0 {
		volume.Annotations[annPreResizeCapacity] = fsSize.String()
	}
}

func addMountOption(volume *corev1.PersistentVolume, option string) {
	if !slices.Contains(volume.Spec.MountOptions, option) {
		volume.Spec.MountOptions = append(slices.Clone(volume.Spec.MountOptions), option)
	}
}
