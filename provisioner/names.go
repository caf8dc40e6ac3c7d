package provisioner

// DefaultName is the default name of the provisioner in StorageClasses. The retired
// rbd-provisioner had the same name.
const DefaultName = "ceph.com/rbd"

// volumePrefix is the prefix of the names of PersistentVolumes. The library defines it.
const volumePrefix = "pvc-"

// VolumeName returns the name of the PersistentVolume of a claim.
func VolumeName(claimUID string) string { return volumePrefix + claimUID }

// Annotations of our PersistentVolumes that deletion reads.
const (
	// annDeletionSecretName and annDeletionSecretNamespace are names of external-provisioner.
	annDeletionSecretName      = "volume.kubernetes.io/provisioner-deletion-secret-name"
	annDeletionSecretNamespace = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
	// annAdminID is the cephx user whose key the deletion secret has.
	annAdminID = "rbd-provisioner.ceph.com/admin-id"
	// annProvisionedBy is set by the library. Its value is the name of the provisioner.
	annProvisionedBy = "pv.kubernetes.io/provisioned-by"
	// annTrashRetention is the trashRetention of the class.
	annTrashRetention = "rbd-provisioner.ceph.com/trash-retention"
	// annPredecessor is on each PersistentVolume of the retired rbd-provisioner. Its value is
	// the identity of the instance.
	annPredecessor = "rbdProvisionerIdentity"
)

// Annotations of our PersistentVolumes that others read.
const (
	// annImageFormat and annImageFeatures are read by csi-translation-lib.
	annImageFormat   = "imageFormat"
	annImageFeatures = "imageFeatures"
	// annClonedFrom is on the volume of a clone. Its value is the name of the source volume.
	annClonedFrom = "rbd-provisioner.ceph.com/cloned-from"
	// annPreResizeCapacity is read by the kubelet. It has the size of the file system if the
	// volume is larger.
	annPreResizeCapacity = "volume.alpha.kubernetes.io/pre-resize-capacity"
)

// annCloneUnmounted with the value "true" on a claim asks for a clone of a volume that no
// node has mounted. The file system of such a clone is clean.
const annCloneUnmounted = "rbd-provisioner.ceph.com/clone-unmounted"

// reasonUserSecret is the reason of the event about a user secret that nodes cannot use.
// The library sends Provisioning, ProvisioningSucceeded, ProvisioningFailed and
// VolumeFailedDelete.
const reasonUserSecret = "InvalidUserSecret"
