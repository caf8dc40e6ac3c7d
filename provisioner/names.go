package provisioner

// DefaultName is the provisioner's name in StorageClasses, unless it is told
// another: the one that the retired rbd-provisioner had.
const DefaultName = "ceph.com/rbd"

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

// annCloneUnmounted, with the value "true", is what people write on a claim that is to
// be a clone of a volume that no node has mounted, whose file system is clean.
const annCloneUnmounted = "rbd-provisioner.ceph.com/clone-unmounted"

// annClonedFrom is on the PersistentVolume of a clone, with the name of its source's.
const annClonedFrom = "rbd-provisioner.ceph.com/cloned-from"

// annTrashRetention is on the PersistentVolume, with the class's trashRetention.
const annTrashRetention = "rbd-provisioner.ceph.com/trash-retention"

// annPreResizeCapacity is Kubernetes' own: a volume with it is larger than the file
// system on it, which has the size that it says.
const annPreResizeCapacity = "volume.alpha.kubernetes.io/pre-resize-capacity"

// annPredecessor is on every PersistentVolume that the retired rbd-provisioner
// made, with its identity as value.
const annPredecessor = "rbdProvisionerIdentity"

// Reasons of the events that this package sends itself. The library sends
// Provisioning, ProvisioningSucceeded, ProvisioningFailed and VolumeFailedDelete.
const (
	// reasonRestored: the volume's image was in the trash, and is not any more.
	reasonRestored = "ImageRestored"
	// reasonInTrash: the volume's image is in the trash, and its name is taken.
	reasonInTrash = "ImageInTrash"
	// reasonNotReleased: the volume keeps its finalizer, as its image may be in the trash.
	reasonNotReleased = "FinalizerKept"
	// reasonOrphan: an image that holds data has neither claim nor volume.
	reasonOrphan = "OrphanedImage"
	// reasonUserSecret: the volume is there, but nodes may fail to mount it.
	reasonUserSecret = "UserSecretDoubtful"
	// These are external-resizer's: the image is being grown; its growing failed; it is
	// done, and the file system is the kubelet's; it is done, and that is all.
	reasonResizing         = "Resizing"
	reasonResizeFailed     = "VolumeResizeFailed"
	reasonFileSystemResize = "FileSystemResizeRequired"
	reasonResizeSuccess    = "VolumeResizeSuccessful"
)
