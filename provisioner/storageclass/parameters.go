package storageclass

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Parameters are the parameters of a StorageClass, with defaults applied.
type Parameters struct {
	// Monitors are the monitor addresses, in the order and spelling of the class.
	Monitors []string
	// AdminID is the cephx user that creates and deletes images.
	AdminID string
	// AdminSecret is the Secret with the key of AdminID.
	AdminSecret types.NamespacedName
	// UserID is the cephx user that the nodes map images as.
	UserID string
	// UserSecret is the Secret with the key of UserID. Its name is empty if the nodes have
	// a keyring file. Its namespace is empty if it is the namespace of the claim.
	UserSecret types.NamespacedName
	// Keyring is the path of a keyring file on the nodes.
	Keyring string
	// Pool is the pool of the images.
	Pool string
	// Layout is the layout of new images.
	Layout rbdutil.Layout
	// FSType is the file system of new volumes; empty for the default of the kubelet.
	FSType string
	// TrashRetention is how long a deleted image stays in the trash.
	TrashRetention time.Duration
}

// The defaults of optional parameters. Both predecessors have the same.
const (
	defaultAdminID              = "admin"
	defaultAdminSecretNamespace = "default"
	defaultPool                 = "rbd"
)

// ImageFormat is the only value of the parameter imageFormat.
const ImageFormat = "2"

// keys are all parameters, in the spelling of the documentation.
var keys = []string{
	"monitors", "adminId", "adminSecretName", "adminSecretNamespace",
	"userId", "userSecretName", "userSecretNamespace", "keyring",
	"pool", "dataPool", "imageFormat", "imageFeatures", "objectSize", "fsType", "trashRetention",
}

// synonyms are other spellings of keys. CSI drivers have the file system under its own key, and
// StorageClasses are moved from one driver to another.
var synonyms = map[string]string{"csi.storage.k8s.io/fstype": "fsType"}

// fsTypes are the file systems that the kubelet can create and expand on an image.
var fsTypes = []string{"ext4", "xfs", "ext3", "btrfs"}

// Parse reads the parameters of a StorageClass. It returns all mistakes at once.
func Parse(raw map[string]string) (Parameters, field.ErrorList) {
	r := newReader(raw)
	p := Parameters{
		Monitors: r.monitors(),
		AdminID:  r.user("adminId", defaultAdminID),
		AdminSecret: types.NamespacedName{
			Name:      r.name("adminSecretName", validation.IsDNS1123Subdomain),
			Namespace: r.nameOr("adminSecretNamespace", defaultAdminSecretNamespace, validation.IsDNS1123Label),
		},
		UserSecret: types.NamespacedName{
			Name:      r.name("userSecretName", validation.IsDNS1123Subdomain),
			Namespace: r.name("userSecretNamespace", validation.IsDNS1123Label),
		},
		Keyring: r.keyring(),
		Pool:    r.pool("pool", defaultPool),
		Layout: rbdutil.Layout{
			Features:   r.features(),
			ObjectSize: r.objectSize(),
			DataPool:   r.dataPool(),
		},
		FSType:         r.oneOf("fsType", fsTypes),
		TrashRetention: r.retention(),
	}
	p.UserID = r.user("userId", p.AdminID)
	r.require("adminSecretName", "the Secret with the key of client."+p.AdminID)
	if r.values["keyring"] == "" {
		r.require("userSecretName", "the Secret with the key of client."+p.UserID+
			" that nodes map the image with (or keyring, a file on every node)")
	}
	r.oneOf("imageFormat", []string{ImageFormat})
	if p.Layout.DataPool == p.Pool {
		p.Layout.DataPool = "" // Ceph records no data pool in this case
	}
	return p, r.errs
}
