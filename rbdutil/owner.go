package rbdutil

import "fmt"

// Owner is the claim, provisioner and Kubernetes cluster that an image was created for.
type Owner struct {
	ClaimUID       string `json:"claimUID,omitempty"`
	ClaimNamespace string `json:"claimNamespace,omitempty"`
	ClaimName      string `json:"claimName,omitempty"`
	// VolumeName is the name of the PersistentVolume.
	VolumeName string `json:"volumeName,omitempty"`
	// Provisioner is the provisioner's name, as in StorageClasses.
	Provisioner string `json:"provisioner,omitempty"`
	// ClusterID distinguishes Kubernetes clusters that share a pool.
	ClusterID string `json:"clusterID,omitempty"`
}

// Unknown reports whether neither a claim nor a volume is named.
func (o Owner) Unknown() bool { return o.ClaimUID == "" && o.VolumeName == "" }

// SameClaim reports whether both name the same claim, made by the same provisioner of
// the same Kubernetes cluster.
func (o Owner) SameClaim(other Owner) bool {
	return o.ClaimUID != "" && o.ClaimUID == other.ClaimUID && o.SameMaker(other)
}

// SameMaker reports whether both name the same provisioner of the same cluster.
func (o Owner) SameMaker(other Owner) bool {
	return o.Provisioner == other.Provisioner && o.ClusterID == other.ClusterID
}

// SameVolume reports whether both name the same PersistentVolume. An owner that an
// administrator wrote into the metadata may lack the cluster id.
func (o Owner) SameVolume(other Owner) bool {
	return o.VolumeName != "" && o.VolumeName == other.VolumeName &&
		(o.ClusterID == "" || other.ClusterID == "" || o.ClusterID == other.ClusterID)
}

// String describes the owner in an error.
func (o Owner) String() string {
	switch {
	case o.ClaimName != "":
		return "claim " + o.ClaimNamespace + "/" + o.ClaimName
	case o.ClaimUID != "":
		return "claim with UID " + o.ClaimUID
	case o.VolumeName != "":
		return "volume " + o.VolumeName
	default:
		return "no known owner"
	}
}

// Precondition is what an image must fulfil before it is changed or deleted.
type Precondition struct {
	// Owner names the volume that the image must belong to.
	Owner Owner
	// AllowUnknown also allows an image without a record, as the predecessors of this
	// provisioner created them.
	AllowUnknown bool
}

// checkOwner returns an error if the image does not fulfil the precondition.
func checkOwner(img Image, precondition Precondition) error {
	owner := img.Owner()
	switch {
	case img.RecordError != nil:
		return fmt.Errorf("%w: %s: %w; if it is the image of volume %s, set its owner with: %s",
			ErrForeignImage, img.ImageRef, img.RecordError, precondition.Owner.VolumeName, setOwnerCommand(img.ImageRef, precondition))
	case owner.Unknown() && !precondition.AllowUnknown:
		return fmt.Errorf("%w: the metadata of %s names no owner; if it is the image of volume %s, set its owner with: %s",
			ErrForeignImage, img.ImageRef, precondition.Owner.VolumeName, setOwnerCommand(img.ImageRef, precondition))
	case !owner.Unknown() && !owner.SameVolume(precondition.Owner):
		return fmt.Errorf("%w: the metadata of %s names %s (volume %q, cluster %q), not volume %q of cluster %q",
			ErrForeignImage, img.ImageRef, owner, owner.VolumeName, owner.ClusterID, precondition.Owner.VolumeName, precondition.Owner.ClusterID)
	}
	return nil
}

// setOwnerCommand returns the command by which an administrator sets the owner of an image.
func setOwnerCommand(ref ImageRef, precondition Precondition) string {
	record := Record{Owner: Owner{VolumeName: precondition.Owner.VolumeName}}
	return fmt.Sprintf("rbd image-meta set %s %s '%s'", ref, MetaRecord, record.Encode())
}

func foreignImageError(img Image) error {
	if img.RecordError != nil {
		return fmt.Errorf("%w: %s already exists: %w", ErrForeignImage, img.ImageRef, img.RecordError)
	}
	return fmt.Errorf("%w: %s already exists for %s", ErrForeignImage, img.ImageRef, img.Owner())
}
