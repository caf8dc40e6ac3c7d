package provisioner

// DefaultName is the provisioner's name in StorageClasses, unless it is told
// another: the one that the retired rbd-provisioner had.
const DefaultName = "ceph.com/rbd"

// imagePrefix begins every image's name; the claim's UID follows. The prefix is
// the one that csi-translation-lib and ceph-csi expect of in-tree volumes.
const imagePrefix = "kubernetes-dynamic-pvc-"

// volumePrefix begins the name of every PersistentVolume, by the library's rule; the
// claim's UID follows.
const volumePrefix = "pvc-"

// Annotations of our PersistentVolumes. Deletion needs them, and nothing else but
// the volume itself.
const (
	// annDeletionSecretName and -Namespace are external-provisioner's names.
	annDeletionSecretName      = "volume.kubernetes.io/provisioner-deletion-secret-name"
	annDeletionSecretNamespace = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
	// annAdminID is the cephx user to which the deletion secret belongs.
	annAdminID = "rbd-provisioner.ceph.com/admin-id"
	// annProvisionedBy is the library's, and says whose the volume is.
	annProvisionedBy = "pv.kubernetes.io/provisioned-by"
	// annImageFormat and annImageFeatures are read by csi-translation-lib.
	annImageFormat   = "imageFormat"
	annImageFeatures = "imageFeatures"
)

// annPredecessor is on every PersistentVolume that the retired rbd-provisioner
// made, with its identity as value.
const annPredecessor = "rbdProvisionerIdentity"

// Reasons of the events that this package sends itself. The library sends
// Provisioning, ProvisioningSucceeded, ProvisioningFailed and VolumeFailedDelete.
const (
	// reasonUserSecret: the volume is there, but nodes may fail to mount it.
	reasonUserSecret = "UserSecretDoubtful"
)
