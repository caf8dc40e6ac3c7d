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

// annCloneUnmounted, with the value "true", is what people write on a claim that is to
// be a clone of a volume that no node has mounted, whose file system is clean.
const annCloneUnmounted = "rbd-provisioner.ceph.com/clone-unmounted"

// annClonedFrom is on the PersistentVolume of a clone, with the name of its source's.
const annClonedFrom = "rbd-provisioner.ceph.com/cloned-from"

// annPreResizeCapacity is Kubernetes' own: a volume with it is larger than the file
// system on it, which has the size that it says.
const annPreResizeCapacity = "volume.alpha.kubernetes.io/pre-resize-capacity"

// annPredecessor is on every PersistentVolume that the retired rbd-provisioner
// made, with its identity as value.
const annPredecessor = "rbdProvisionerIdentity"

// Reasons of the events that this package sends itself. The library sends
// Provisioning, ProvisioningSucceeded, ProvisioningFailed and VolumeFailedDelete.
const (
	// reasonUserSecret: the volume is there, but nodes may fail to mount it.
	reasonUserSecret = "UserSecretDoubtful"
	// These are external-resizer's: the image is being grown; its growing failed; it is
	// done, and the file system is the kubelet's; it is done, and that is all.
	reasonResizing         = "Resizing"
	reasonResizeFailed     = "VolumeResizeFailed"
	reasonFileSystemResize = "FileSystemResizeRequired"
	reasonResizeSuccess    = "VolumeResizeSuccessful"
)
