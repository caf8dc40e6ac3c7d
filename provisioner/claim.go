package provisioner

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// sizeOf returns the size, in bytes, of the image of that layout for a claim, and
// everything that keeps us from serving the claim at all.
func sizeOf(claim *corev1.PersistentVolumeClaim, layout rbdutil.Layout) (uint64, field.ErrorList) {
	spec := field.NewPath("spec")
	errs := checkAccessModes(spec.Child("accessModes"), claim.Spec.AccessModes, sourceName(claim) != "")
	errs = append(errs, checkSource(spec, claim)...)
	if claim.Spec.Selector != nil {
		errs = append(errs, field.Forbidden(spec.Child("selector"),
			"a new volume has no labels to select by; remove it, or name an existing volume"))
	}
	storage := spec.Child("resources", "requests", "storage")
	request, given := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if !given {
		return 0, append(errs, field.Required(storage, "the size of the volume, such as 1Gi"))
	}
	size, err := rbdutil.SizeFor(bytesOf(request), layout)
	if err != nil {
		errs = append(errs, field.Invalid(storage, request.String(), err.Error()))
	}
	return size, errs
}

// bytesOf is the quantity's value, or the greatest there is for one beyond it, where
// Value would begin anew.
func bytesOf(q resource.Quantity) int64 {
	if q.CmpInt64(math.MaxInt64) > 0 {
		return math.MaxInt64
	}
	return q.Value()
}

func checkAccessModes(path *field.Path, modes []corev1.PersistentVolumeAccessMode, clone bool) field.ErrorList {
	const allowed = "allowed: ReadWriteOnce, alone or with ReadOnlyMany"
	var errs field.ErrorList
	for i, mode := range modes {
		switch mode {
		case corev1.ReadWriteOnce:
		case corev1.ReadOnlyMany:
			if !clone && !slices.Contains(modes, corev1.ReadWriteOnce) {
				errs = append(errs, field.Invalid(path.Index(i), mode,
					"a new volume is empty, and nobody could ever write to it, "+allowed))
			}
		case corev1.ReadWriteMany:
			errs = append(errs, field.Invalid(path.Index(i), mode,
				"a file system on an RBD image breaks when two nodes write to it, "+allowed))
		case corev1.ReadWriteOncePod:
			errs = append(errs, field.Invalid(path.Index(i), mode,
				"Kubernetes enforces it for CSI volumes only, not for rbd volumes, "+allowed))
		default:
			errs = append(errs, field.Invalid(path.Index(i), mode, allowed))
		}
	}
	return errs
}

// readOnly tells whether nobody is to write to the claim's volume.
func readOnly(claim *corev1.PersistentVolumeClaim) bool {
	modes := claim.Spec.AccessModes
	return slices.Contains(modes, corev1.ReadOnlyMany) && !slices.Contains(modes, corev1.ReadWriteOnce)
}

// checkSource refuses a claim that is to begin with the data of something that is no
// claim: an empty volume in its place would look like lost data.
func checkSource(spec *field.Path, claim *corev1.PersistentVolumeClaim) field.ErrorList {
	const why = "this provisioner copies PersistentVolumeClaims only; remove it, or choose a class that can copy from it"
	var errs field.ErrorList
	if source := claim.Spec.DataSource; source != nil && !isClaim(source.APIGroup, source.Kind) {
		errs = append(errs, field.Invalid(spec.Child("dataSource"), source.Kind+" "+source.Name, why))
	} else if source := claim.Spec.DataSourceRef; source != nil {
		path := spec.Child("dataSourceRef")
		switch {
		case !isClaim(source.APIGroup, source.Kind):
			errs = append(errs, field.Invalid(path, source.Kind+" "+source.Name, why))
		case ptr.Deref(source.Namespace, claim.Namespace) != claim.Namespace:
			errs = append(errs, field.Invalid(path.Child("namespace"), *source.Namespace, "a clone must be in the namespace of its source"))
		}
	}
	return errs
}

func isClaim(group *string, kind string) bool {
	return ptr.Deref(group, "") == "" && kind == "PersistentVolumeClaim"
}

// sourceName is the name of the claim that this one is to be a clone of, or nothing.
func sourceName(claim *corev1.PersistentVolumeClaim) string {
	switch spec := claim.Spec; {
	case spec.DataSource != nil:
		return spec.DataSource.Name
	case spec.DataSourceRef != nil:
		return spec.DataSourceRef.Name
	}
	return ""
}
