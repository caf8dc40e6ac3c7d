package provisioner

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Clusters finds, for a StorageClass or a PersistentVolume, the Ceph cluster, the
// credentials to change images there and the precondition of a change.
type Clusters struct {
	// Provisioner is the provisioner's name in StorageClasses.
	Provisioner string
	// ClusterID distinguishes the images of this Kubernetes cluster from those of other
	// clusters in the same pool.
	ClusterID string
	// Identities are the identities of the retired rbd-provisioner whose volumes are
	// served, besides Provisioner.
	Identities []string
	// Secrets reads the Secrets with the cephx keys.
	Secrets corev1client.SecretsGetter
	// Classes are used only for volumes that lack the annotations for deletion.
	Classes storagelisters.StorageClassLister
}

// Target is the image of a PersistentVolume, with what a change of the image requires.
type Target struct {
	rbdutil.ImageRef
	Cluster      rbdutil.Cluster
	Precondition rbdutil.Precondition
	adminSecret  types.NamespacedName
}

// WithHint adds to an error of Ceph what the administrator can do about it.
func (t Target) WithHint(err error) error { return withHint(err, t.errorContext()) }

func (t Target) errorContext() errorContext {
	return errorContext{cluster: t.Cluster, pool: t.Pool, image: t.ImageRef, adminSecret: t.adminSecret}
}

// Maker identifies this provisioner in the records of images.
func (c Clusters) Maker() rbdutil.Owner {
	return rbdutil.Owner{Provisioner: c.Provisioner, ClusterID: c.ClusterID}
}

// IsManaged reports whether the volume is an rbd volume of this provisioner.
func (c Clusters) IsManaged(volume *corev1.PersistentVolume) bool {
	return volume.Annotations[annProvisionedBy] == c.Provisioner && volume.Spec.RBD != nil
}

// CheckIdentity returns an error for a volume that the retired rbd-provisioner created
// under an identity that is not served. Each of its instances served only its own.
func (c Clusters) CheckIdentity(volume *corev1.PersistentVolume) error {
	identity, ok := volume.Annotations[annPredecessor]
	if !ok || identity == c.Provisioner || slices.Contains(c.Identities, identity) {
		return nil
	}
	if identity == "" {
		return preflightf("annotation %s of the volume is empty: set it to the identity of the rbd-provisioner that created the volume, or remove it", annPredecessor)
	}
	return preflightf("the volume was created by the rbd-provisioner with identity %q (annotation %s), which this provisioner does not serve: to serve it, start this provisioner with --predecessor-identity=%s",
		storageclass.Truncate(identity), annPredecessor, storageclass.Truncate(identity))
}

// ForClass returns the Ceph cluster of a StorageClass, with its admin user.
func (c Clusters) ForClass(ctx context.Context, params storageclass.Parameters) (rbdutil.Cluster, error) {
	return c.connect(ctx, params.Monitors, admin{params.AdminID, params.AdminSecret})
}

// ForVolume returns the image of a volume with an rbd source. It does not check the
// identity.
func (c Clusters) ForVolume(ctx context.Context, volume *corev1.PersistentVolume) (Target, error) {
	user, err := c.adminOf(volume)
	if err != nil {
		return Target{}, err
	}
	cluster, err := c.connect(ctx, volume.Spec.RBD.CephMonitors, user)
	if err != nil {
		return Target{}, err
	}
	return Target{
		ImageRef: imageOf(volume), Cluster: cluster, Precondition: c.precondition(volume), adminSecret: user.secret,
	}, nil
}

// imageOf returns the image of a volume with an rbd source.
func imageOf(volume *corev1.PersistentVolume) rbdutil.ImageRef {
	return rbdutil.ImageRef{Pool: volume.Spec.RBD.RBDPool, Name: volume.Spec.RBD.RBDImage}
}

// precondition identifies the image of a volume. Images of the retired rbd-provisioner
// have no record, but their names have the same prefix as ours. The retired
// rbd-provisioner did not create any other image without a record.
func (c Clusters) precondition(volume *corev1.PersistentVolume) rbdutil.Precondition {
	owner := c.Maker()
	owner.VolumeName = volume.Name
	_, predecessor := volume.Annotations[annPredecessor]
	return rbdutil.Precondition{
		Owner:        owner,
		AllowUnknown: predecessor && rbdutil.HasImagePrefix(volume.Spec.RBD.RBDImage),
	}
}

// admin is a cephx user that changes images, and the Secret with its key.
type admin struct {
	id     string
	secret types.NamespacedName
}

func (c Clusters) connect(ctx context.Context, monitors []string, user admin) (rbdutil.Cluster, error) {
	key, err := c.adminKey(ctx, user.secret)
	if err != nil {
		return rbdutil.Cluster{}, err
	}
	return rbdutil.Cluster{Monitors: monitors, User: user.id, Key: key}, nil
}

// adminOf reads the volume's annotations. It reads the class only for what they lack:
// volumes of a predecessor have no annotations.
func (c Clusters) adminOf(volume *corev1.PersistentVolume) (admin, error) {
	a := admin{
		id: volume.Annotations[annAdminID],
		secret: types.NamespacedName{
			Name:      volume.Annotations[annDeletionSecretName],
			Namespace: volume.Annotations[annDeletionSecretNamespace],
		},
	}
	if a.id != "" && a.secret.Name != "" && a.secret.Namespace != "" {
		return a, nil
	}
	params, err := c.classOf(volume)
	if err != nil {
		return admin{}, preflightf("the volume lacks annotations for its admin user, and its class cannot replace them (%w): annotate the volume with %s and %s (the secret with the key) and %s (the cephx user)",
			err, annDeletionSecretName, annDeletionSecretNamespace, annAdminID)
	}
	return admin{
		id: cmp.Or(a.id, params.AdminID),
		secret: types.NamespacedName{
			Name:      cmp.Or(a.secret.Name, params.AdminSecret.Name),
			Namespace: cmp.Or(a.secret.Namespace, params.AdminSecret.Namespace),
		},
	}, nil
}

// classOf returns the parameters of the volume's class.
func (c Clusters) classOf(volume *corev1.PersistentVolume) (storageclass.Parameters, error) {
	name := storagehelpers.GetPersistentVolumeClass(volume)
	class, err := c.Classes.Get(name)
	switch {
	case apierrors.IsNotFound(err):
		return storageclass.Parameters{}, fmt.Errorf("StorageClass %q does not exist", name)
	case err != nil:
		return storageclass.Parameters{}, err
	}
	// Other mistakes in the class do not matter here. A predecessor accepted some of them.
	params, _ := storageclass.Parse(class.Parameters)
	if params.AdminSecret.Name == "" {
		return storageclass.Parameters{}, fmt.Errorf("StorageClass %s has no adminSecretName", name)
	}
	return params, nil
}
