package rbdutil

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
