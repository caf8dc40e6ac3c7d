package provisioner

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// admin is the Ceph user that deletes an image, and where its key is.
type admin struct {
	id     string
	secret types.NamespacedName
}

// adminFor reads the volume's annotations and, for what they lack, its class: a
// volume of the predecessor has none of them.
func (p *Provisioner) adminFor(volume *corev1.PersistentVolume) (admin, error) {
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
	params, err := p.classOf(volume)
	if err != nil {
		return admin{}, refusef("the volume lacks annotations and its class does not help (%w): annotate the volume with %s and %s (the secret with the key) and %s (the cephx user)",
			err, annDeletionSecretName, annDeletionSecretNamespace, annAdminID)
	}
	return admin{
		id: cmp.Or(a.id, params.adminID),
		secret: types.NamespacedName{
			Name:      cmp.Or(a.secret.Name, params.adminSecret.Name),
			Namespace: cmp.Or(a.secret.Namespace, params.adminSecret.Namespace),
		},
	}, nil
}

// clusterOf is how to reach the Ceph of a volume with an rbd source, as its admin.
func (p *Provisioner) clusterOf(ctx context.Context, volume *corev1.PersistentVolume) (rbdutil.Cluster, admin, error) {
	user, err := p.adminFor(volume)
	if err != nil {
		return rbdutil.Cluster{}, admin{}, err
	}
	key, err := p.adminKey(ctx, user.secret)
	if err != nil {
		return rbdutil.Cluster{}, admin{}, err
	}
	return rbdutil.Cluster{Monitors: volume.Spec.RBD.CephMonitors, User: user.id, Key: key}, user, nil
}

// classOf returns what the volume's class says, if the class is there and right.
func (p *Provisioner) classOf(volume *corev1.PersistentVolume) (parameters, error) {
	name := storagehelpers.GetPersistentVolumeClass(volume)
	class, err := p.classes.Get(name)
	switch {
	case apierrors.IsNotFound(err):
		return parameters{}, fmt.Errorf("StorageClass %q does not exist", name)
	case err != nil:
		return parameters{}, err
	}
	// Mistakes elsewhere in it, or what only its old provisioner took, are no matter now.
	params, _ := parseParameters(class.Parameters)
	if params.adminSecret.Name == "" {
		return parameters{}, fmt.Errorf("StorageClass %s has no adminSecretName", name)
	}
	return params, nil
}
