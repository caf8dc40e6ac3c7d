package rbdutil

import "fmt"

// Owner says for which claim, by which provisioner and for which Kubernetes
// cluster an image was made.
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

// SameVolume reports whether both name the same PersistentVolume. An owner that a person
// has written into the metadata may lack the cluster id.
func (o Owner) SameVolume(other Owner) bool {
	return o.VolumeName != "" && o.VolumeName == other.VolumeName &&
		(o.ClusterID == "" || other.ClusterID == "" || o.ClusterID == other.ClusterID)
}

// String names the owner for an error message.
func (o Owner) String() string {
	switch {
	case o.ClaimName != "":
		return "claim " + o.ClaimNamespace + "/" + o.ClaimName
	case o.ClaimUID != "":
		return "a claim of UID " + o.ClaimUID
	case o.VolumeName != "":
		return "volume " + o.VolumeName
	default:
		return "no known owner"
	}
}

// Precondition is what must be true of an image before it may be changed or deleted.
type Precondition struct {
	// Owner names the volume whose image it must be.
	Owner Owner
	// AllowUnknown also accepts an image without a record, as the predecessors of this
	// provisioner made them.
	AllowUnknown bool
}

// checkOwner returns an error if the image is not the one expected.
func checkOwner(img Image, precondition Precondition) error {
	owner := img.Owner()
	switch {
	case img.RecordError != nil:
		return fmt.Errorf("%w: %s: %w; if it is the image of volume %s, say so with: %s",
			ErrForeignImage, img.ImageRef, img.RecordError, precondition.Owner.VolumeName, setOwnerCommand(img.ImageRef, precondition))
	case owner.Unknown() && !precondition.AllowUnknown:
		return fmt.Errorf("%w: the metadata of %s names no owner; if it is the image of volume %s, say so with: %s",
			ErrForeignImage, img.ImageRef, precondition.Owner.VolumeName, setOwnerCommand(img.ImageRef, precondition))
	case !owner.Unknown() && !owner.SameVolume(precondition.Owner):
		return fmt.Errorf("%w: the metadata of %s names %s (volume %q, cluster %q), not volume %q of cluster %q",
			ErrForeignImage, img.ImageRef, owner, owner.VolumeName, owner.ClusterID, precondition.Owner.VolumeName, precondition.Owner.ClusterID)
	}
	return nil
}

// setOwnerCommand is the command that makes a volume the owner of an image without a record.
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
