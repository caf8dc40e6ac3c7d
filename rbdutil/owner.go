package rbdutil

// The image-meta keys that say whose image it is. The first four follow the tags
// that Kubernetes' own cloud provisioners put on the disks they make. What a later
// audit needs is all here: `rbd image-meta list POOL/IMAGE`.
const (
	metaClaimUID       = "kubernetes.io/created-for/pvc/uid"
	metaClaimNamespace = "kubernetes.io/created-for/pvc/namespace"
	metaClaimName      = "kubernetes.io/created-for/pvc/name"
	metaVolumeName     = "kubernetes.io/created-for/pv/name"
	metaProvisioner    = "kubernetes.io/created-by/provisioner"
	metaClusterID      = "kubernetes.io/created-by/cluster-id"
	// metaSource is the snapshot that a clone was made of, as a SnapshotRef.
	metaSource = "kubernetes.io/created-from/snapshot"
	// metaSourceSize is the size of that snapshot, in bytes.
	metaSourceSize = "kubernetes.io/created-from/size"
	// metaHandedOut is on a clone for which there has been a PersistentVolume: it is
	// somebody's copy of the data, though nobody may have written to it.
	metaHandedOut = "kubernetes.io/created-for/pv/handed-out"
)

// Owner says for which claim, by which provisioner and for which Kubernetes
// cluster an image was made.
type Owner struct {
	ClaimUID       string
	ClaimNamespace string
	ClaimName      string
	// VolumeName is the name of the PersistentVolume.
	VolumeName string
	// Provisioner is the provisioner's name, as in StorageClasses.
	Provisioner string
	// ClusterID tells Kubernetes clusters that share a pool from each other.
	ClusterID string
}

// fields pairs each part of an Owner with its key, so that reading, writing and
// comparing cannot drift apart. The claim's UID comes first: once it is there, the
// image is known to be ours.
func (o *Owner) fields() []struct {
	Key   string
	Value *string
} {
	return []struct {
		Key   string
		Value *string
	}{
		{metaClaimUID, &o.ClaimUID},
		{metaClaimNamespace, &o.ClaimNamespace},
		{metaClaimName, &o.ClaimName},
		{metaVolumeName, &o.VolumeName},
		{metaProvisioner, &o.Provisioner},
		{metaClusterID, &o.ClusterID},
	}
}

func ownerFromMetadata(metadata map[string]string) Owner {
	var o Owner
	for _, f := range o.fields() {
		*f.Value = metadata[f.Key]
	}
	return o
}

// MetadataItem is one image-meta key and its value.
type MetadataItem struct{ Key, Value string }

// missingFrom returns what must still be written into an image's metadata, in
// the order in which it must be written.
func (o Owner) missingFrom(metadata map[string]string) []MetadataItem {
	var items []MetadataItem
	for _, f := range o.fields() {
		if *f.Value != "" && metadata[f.Key] != *f.Value {
			items = append(items, MetadataItem{f.Key, *f.Value})
		}
	}
	return items
}

// Unknown tells whether the image's metadata names nobody at all: neither a claim
// nor a volume.
func (o Owner) Unknown() bool { return o.ClaimUID == "" && o.VolumeName == "" }

// SameClaim tells whether both name the same claim of the same Kubernetes cluster.
func (o Owner) SameClaim(other Owner) bool {
	return o.ClaimUID != "" && o.ClaimUID == other.ClaimUID &&
		(o.ClusterID == "" || other.ClusterID == "" || o.ClusterID == other.ClusterID)
}

// madeBy tells whether the image was surely made for the other's claim by the same
// provisioner of the same cluster. What only says the first half of that is an image
// whose making was cut short.
func (o Owner) madeBy(other Owner) bool {
	return o.SameClaim(other) &&
		(o.Provisioner == "" || o.Provisioner == other.Provisioner)
}

// sameMaker tells whether nothing says that the two are of different provisioners or
// clusters.
func (o Owner) sameMaker(other Owner) bool {
	return (o.Provisioner == "" || o.Provisioner == other.Provisioner) && (o.ClusterID == "" || o.ClusterID == other.ClusterID)
}

// SameVolume tells whether both name the same PersistentVolume. A cluster id that
// either lacks is not held against it.
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
		return "nobody known"
	}
}
