package provisioner

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Delete implements controller.Provisioner: it deletes the volume's image, and
// nothing that is not surely the volume's image or that anybody still holds. All
// that it needs is on the volume, whatever has become of the class.
func (p *Provisioner) Delete(ctx context.Context, volume *corev1.PersistentVolume) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	source := volume.Spec.RBD
	if source == nil || source.RBDPool == "" || source.RBDImage == "" || len(source.CephMonitors) == 0 {
		return refusef("volume has no rbd source any more, or one without monitors, pool or image, so that its image is unknown: delete the image by hand, then take the volume's finalizers away and delete it")
	}
	ref := rbdutil.ImageRef{Pool: source.RBDPool, Name: source.RBDImage}
	if err := p.checkNodes(ref); err != nil {
		return explain(err, circumstances{})
	}
	cluster, admin, err := p.clusterOf(ctx, volume)
	if err != nil {
		return err
	}
	if err := p.images.Delete(ctx, cluster, ref, p.expectationFor(volume)); err != nil {
		return explain(err, circumstances{cluster: cluster, pool: ref.Pool, adminSecret: admin.secret, deleting: true})
	}
	p.trash.Purge(ctx, cluster, ref.Pool)
	klog.FromContext(ctx).V(2).Info("Image is gone", "volume", volume.Name, "image", ref)
	return nil
}

// expectationFor says how to know the volume's image. Those of the retired
// rbd-provisioner name no owner at all, but are all called as ours are: any other
// image that names nobody was not made by it, whatever the volume says.
func (p *Provisioner) expectationFor(volume *corev1.PersistentVolume) rbdutil.Expectation {
	return rbdutil.Expectation{
		Owner:        rbdutil.Owner{VolumeName: volume.Name, Provisioner: p.name, ClusterID: p.clusterID},
		AllowUnknown: fromPredecessor(volume) && strings.HasPrefix(volume.Spec.RBD.RBDImage, imagePrefix),
	}
}

func fromPredecessor(volume *corev1.PersistentVolume) bool {
	_, ok := volume.Annotations[annPredecessor]
	return ok
}

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

// checkNodes refuses an image that a node reports as in use or attached, as the
// kubelet and the attach-detach controller name it: POOL:IMAGE of the plugin.
func (p *Provisioner) checkNodes(ref rbdutil.ImageRef) error {
	nodes, err := p.nodes.List(labels.Everything())
	if err != nil {
		return refusef("list nodes: %w", err)
	}
	name := corev1.UniqueVolumeName("kubernetes.io/rbd/" + ref.Pool + ":" + ref.Name)
	var holders []string
	for _, node := range nodes {
		attached := slices.ContainsFunc(node.Status.VolumesAttached, func(v corev1.AttachedVolume) bool { return v.Name == name })
		if attached || slices.Contains(node.Status.VolumesInUse, name) {
			holders = append(holders, node.Name)
		}
	}
	if len(holders) == 0 {
		return nil
	}
	slices.Sort(holders)
	return fmt.Errorf("%w: %s is attached to node %s", rbdutil.ErrImageInUse, ref, strings.Join(holders, ", "))
}
