package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Delete implements controller.Provisioner: it moves the volume's image to the trash, and
// nothing that is not surely the volume's image or that anybody still holds. All that it
// needs is on the volume, whatever has become of the class. The steps:
//  1. No other volume shows the image, and no node has it in use.
//  2. The API server itself confirms that the volume is to be deleted: the cache may be old.
//  3. The image, as it is when it is open, is the volume's, and free.
//  4. The library deletes the volume only if it has not changed since step 2. If it has, the
//     image is still in the trash, and is restored when the volume needs it.
func (p *Provisioner) Delete(ctx context.Context, volume *corev1.PersistentVolume) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	source := volume.Spec.RBD
	if source == nil || source.RBDPool == "" || source.RBDImage == "" || len(source.CephMonitors) == 0 {
		return refusef("volume has no rbd source any more, or one without monitors, pool or image, so that its image is unknown: delete the image by hand, then take the volume's finalizers away and delete it")
	}
	ref := rbdutil.ImageRef{Pool: source.RBDPool, Name: source.RBDImage}
	if err := p.checkIdentity(volume); err != nil {
		return err
	}
	if err := p.checkOtherVolumes(ref, volume); err != nil {
		return err
	}
	if err := p.checkNodes(ref); err != nil {
		return explain(err, circumstances{image: ref})
	}
	cluster, admin, err := p.clusterOf(ctx, volume)
	if err != nil {
		return err
	}
	keep, err := p.confirmDeletion(ctx, volume)
	if err != nil {
		if errors.As(err, new(*controller.IgnoredError)) {
			// An earlier attempt may have moved the image to the trash.
			p.trash.Clean(ctx, cluster, ref.Pool)
		}
		return err
	}
	// Also if the call times out: it may be completed later.
	p.trash.CleanAfter(volume.Name, cluster, ref.Pool)
	if err := p.images.Delete(ctx, cluster, ref, p.preconditionFor(volume), keep); err != nil {
		return explain(err, circumstances{cluster: cluster, pool: ref.Pool, image: ref, adminSecret: admin.secret, deleting: true})
	}
	klog.FromContext(ctx).V(2).Info("Deleted image", "volume", volume.Name, "image", ref, "keep", keep)
	return nil
}

// confirmDeletion asks the API server whether the volume is still to be deleted, and
// returns for how long its image is to be kept in the trash. If the volume has changed, the
// error makes the library pass over it without an event: the cache will follow.
func (p *Provisioner) confirmDeletion(ctx context.Context, cached *corev1.PersistentVolume) (time.Duration, error) {
	now, err := p.live.PersistentVolumes().Get(ctx, cached.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return 0, &controller.IgnoredError{Reason: "the volume does not exist any more"}
	case err != nil:
		return 0, refusef("read volume %s: %w", cached.Name, err)
	case now.UID != cached.UID:
		return 0, &controller.IgnoredError{Reason: "the volume was replaced by another of its name"}
	case !isDeletable(now):
		return 0, &controller.IgnoredError{Reason: fmt.Sprintf("the volume is %s, with reclaim policy %s", now.Status.Phase, now.Spec.PersistentVolumeReclaimPolicy)}
	case claimUIDOf(now) != claimUIDOf(cached):
		return 0, &controller.IgnoredError{Reason: "the volume is bound to another claim"}
	case claimUIDOf(now) == "":
		return 0, &controller.IgnoredError{Reason: "the volume was bound to no claim"}
	case now.Annotations[annProvisionedBy] != cached.Annotations[annProvisionedBy]:
		return 0, &controller.IgnoredError{Reason: "the volume was handed over to another provisioner"}
	}
	claimed, err := p.isClaimed(ctx, now)
	switch {
	case err != nil:
		return 0, err
	case claimed:
		return 0, &controller.IgnoredError{Reason: "the claim of the volume exists"}
	}
	p.confirmed(now)
	return retentionOf(now)
}

// isClaimed reports whether the claim of the volume still exists and names the volume. Then
// the phase of the volume is old: its claimRef was changed since. The API server is asked only
// where the cache has the claim, which it may have for a moment longer than the API server.
func (p *Provisioner) isClaimed(ctx context.Context, volume *corev1.PersistentVolume) (bool, error) {
	ref := volume.Spec.ClaimRef
	names := func(claim *corev1.PersistentVolumeClaim, err error) bool {
		return err == nil && claim.UID == ref.UID && claim.Spec.VolumeName == volume.Name
	}
	if !names(p.claims.PersistentVolumeClaims(ref.Namespace).Get(ref.Name)) {
		return false, nil
	}
	claim, err := p.live.PersistentVolumeClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, refusef("read claim %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	return names(claim, err), nil
}

func claimUIDOf(volume *corev1.PersistentVolume) types.UID {
	if volume.Spec.ClaimRef == nil {
		return ""
	}
	return volume.Spec.ClaimRef.UID
}

// retentionOf returns for how long the image of the volume is to be kept in the trash.
func retentionOf(volume *corev1.PersistentVolume) (time.Duration, error) {
	text, ok := volume.Annotations[annTrashRetention]
	if !ok {
		return 0, nil
	}
	keep, err := parseRetention(text)
	if err != nil {
		return 0, refusef("annotation %s of the volume: %q: %w: correct or remove it", annTrashRetention, cut(text), err)
	}
	return keep, nil
}

// checkOtherVolumes refuses to delete an image that another volume shows.
func (p *Provisioner) checkOtherVolumes(ref rbdutil.ImageRef, volume *corev1.PersistentVolume) error {
	volumes, err := volumesOver(p.index, ref)
	if err != nil {
		return refusal{err}
	}
	var others []string
	for _, other := range volumes {
		// Another that is to be deleted as well does not need the image. Until it is gone, the
		// image stays in the trash.
		if other.Name != volume.Name && !isDeletable(other) {
			others = append(others, other.Name)
		}
	}
	if len(others) == 0 {
		return nil
	}
	return refusef("%w: %s is also the image of volume %s: delete the other, or keep the image (`kubectl patch pv %s -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'`)",
		rbdutil.ErrImageInUse, ref, strings.Join(others, ", "), volume.Name)
}

// preconditionFor says how to know the volume's image. Those of the retired rbd-provisioner
// have no record, but are all called as ours are: any other image without a record was not
// made by it, whatever the volume says.
func (p *Provisioner) preconditionFor(volume *corev1.PersistentVolume) rbdutil.Precondition {
	_, predecessor := volume.Annotations[annPredecessor]
	return rbdutil.Precondition{
		Owner:        rbdutil.Owner{VolumeName: volume.Name, Provisioner: p.name, ClusterID: p.clusterID},
		AllowUnknown: predecessor && rbdutil.HasImagePrefix(volume.Spec.RBD.RBDImage),
	}
}

// checkIdentity refuses volumes of the retired rbd-provisioner that another identity has
// made than those that this provisioner serves: each of its instances served only its own.
func (p *Provisioner) checkIdentity(volume *corev1.PersistentVolume) error {
	identity, ok := volume.Annotations[annPredecessor]
	if !ok || identity == p.name || slices.Contains(p.identities, identity) {
		return nil
	}
	if identity == "" {
		return refusef("annotation %s of the volume is empty: set it to the identity of the rbd-provisioner that made the volume, or remove it", annPredecessor)
	}
	return refusef("the volume was made by the rbd-provisioner with identity %q (annotation %s), which this provisioner does not serve: start it with --predecessor-identity=%s if it should",
		cut(identity), annPredecessor, cut(identity))
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
