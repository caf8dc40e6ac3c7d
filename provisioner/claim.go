package provisioner

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// request is what a claim asks for.
type request struct {
	types.NamespacedName
	uid types.UID
	// volume is the name of the PersistentVolume.
	volume string
	// size of the image in bytes.
	size uint64
	// mode of the volume: Filesystem or Block.
	mode        corev1.PersistentVolumeMode
	accessModes []corev1.PersistentVolumeAccessMode
	// readOnly is set if the only access mode is ReadOnlyMany.
	readOnly bool
	// source is the name of the claim to clone; empty if the volume is to be empty.
	source string
	// unmounted is set if no node may have the source mounted. The claim asks for it, or
	// the clone is read-only: then several nodes would recover its file system at a time.
	unmounted bool
}

// parseClaim reads a claim for an image of the layout. It returns all mistakes at once.
func parseClaim(claim *corev1.PersistentVolumeClaim, layout rbdutil.Layout) (request, field.ErrorList) {
	spec := field.NewPath("spec")
	req := request{
		NamespacedName: types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name},
		uid:            claim.UID,
		mode:           volumeMode(claim),
		accessModes:    claim.Spec.AccessModes,
		readOnly:       IsReadOnly(claim),
		source:         sourceName(claim),
	}
	req.unmounted = req.readOnly || claim.Annotations[annCloneUnmounted] == "true"
	errs := checkAccessModes(spec.Child("accessModes"), claim.Spec.AccessModes, req.source != "")
	errs = append(errs, checkSource(spec, claim)...)
	if claim.Spec.Selector != nil {
		errs = append(errs, field.Forbidden(spec.Child("selector"),
			"a new volume has no labels that a selector could match; remove the selector, or name an existing volume"))
	}
	storage := spec.Child("resources", "requests", "storage")
	quantity, ok := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		return req, append(errs, field.Required(storage, "the size of the volume, such as 1Gi"))
	}
	var err error
	if req.size, err = rbdutil.SizeFor(storageclass.Bytes(quantity), layout); err != nil {
		errs = append(errs, field.Invalid(storage, quantity.String(), err.Error()))
	}
	return req, errs
}

// owner returns the owner of the claim's image.
func (r request) owner(maker rbdutil.Owner) rbdutil.Owner {
	maker.ClaimUID, maker.ClaimNamespace, maker.ClaimName = string(r.uid), r.Namespace, r.Name
	maker.VolumeName = r.volume
	return maker
}

func checkAccessModes(modesPath *field.Path, modes []corev1.PersistentVolumeAccessMode, clone bool) field.ErrorList {
	const allowed = "allowed: ReadWriteOnce, alone or with ReadOnlyMany"
	var errs field.ErrorList
	for i, mode := range modes {
		switch mode {
		case corev1.ReadWriteOnce:
		case corev1.ReadOnlyMany:
			if !clone && !slices.Contains(modes, corev1.ReadWriteOnce) {
				errs = append(errs, field.Invalid(modesPath.Index(i), mode,
					"a new volume is empty, and nodes could never write to it, "+allowed))
			}
		case corev1.ReadWriteMany:
			errs = append(errs, field.Invalid(modesPath.Index(i), mode,
				"two nodes that write to a file system on an RBD image corrupt it, "+allowed))
		case corev1.ReadWriteOncePod:
			errs = append(errs, field.Invalid(modesPath.Index(i), mode,
				"Kubernetes enforces it for CSI volumes only, not for rbd volumes, "+allowed))
		default:
			errs = append(errs, field.Invalid(modesPath.Index(i), mode, allowed))
		}
	}
	return errs
}

// IsReadOnly reports whether the only access mode of the claim is ReadOnlyMany.
func IsReadOnly(claim *corev1.PersistentVolumeClaim) bool {
	modes := claim.Spec.AccessModes
	return slices.Contains(modes, corev1.ReadOnlyMany) && !slices.Contains(modes, corev1.ReadWriteOnce)
}

func volumeMode(claim *corev1.PersistentVolumeClaim) corev1.PersistentVolumeMode {
	return ptr.Deref(claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
}

// checkSource rejects a data source that is not a PersistentVolumeClaim. An empty volume
// in its place would look like lost data.
func checkSource(spec *field.Path, claim *corev1.PersistentVolumeClaim) field.ErrorList {
	const why = "this provisioner clones PersistentVolumeClaims only; remove it, or use a class that supports this data source"
	var errs field.ErrorList
	if source := claim.Spec.DataSource; source != nil && !isClaim(source.APIGroup, source.Kind) {
		errs = append(errs, field.Invalid(spec.Child("dataSource"), source.Kind+" "+source.Name, why))
	} else if source := claim.Spec.DataSourceRef; source != nil {
		refPath := spec.Child("dataSourceRef")
		switch {
		case !isClaim(source.APIGroup, source.Kind):
			errs = append(errs, field.Invalid(refPath, source.Kind+" "+source.Name, why))
		case ptr.Deref(source.Namespace, claim.Namespace) != claim.Namespace:
			errs = append(errs, field.Invalid(refPath.Child("namespace"), *source.Namespace, "a clone must be in the namespace of its source"))
		}
	}
	return errs
}

func isClaim(group *string, kind string) bool {
	return ptr.Deref(group, "") == "" && kind == "PersistentVolumeClaim"
}

// sourceName returns the name of the claim to clone, or an empty string.
func sourceName(claim *corev1.PersistentVolumeClaim) string {
	switch spec := claim.Spec; {
	case spec.DataSource != nil:
		return spec.DataSource.Name
	case spec.DataSourceRef != nil:
		return spec.DataSourceRef.Name
	}
	return ""
}
