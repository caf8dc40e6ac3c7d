package provisioner

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// checkInUse returns an error if another volume or a node needs the image of the volume.
func (p *Provisioner) checkInUse(volume *corev1.PersistentVolume) error {
	ref := imageOf(volume)
	if err := p.checkOtherVolumes(ref, volume); err != nil {
		return err
	}
	return withHint(p.checkNodes(ref), errorContext{image: ref})
}

// checkOtherVolumes returns an error if another volume has the same image.
func (p *Provisioner) checkOtherVolumes(ref rbdutil.ImageRef, volume *corev1.PersistentVolume) error {
	volumes, err := pvindex.Volumes(p.Index, ref)
	if err != nil {
		return preflightError{err}
	}
	var others []string
	for _, other := range volumes {
		// Another volume that is to be deleted as well does not need the image. The image
		// stays in the trash until that volume is gone.
		if other.Name != volume.Name && !pvindex.IsDeletable(other) {
			others = append(others, other.Name)
		}
	}
	if len(others) == 0 {
		return nil
	}
	return preflightf("%w: %s is also the image of volume %s: delete the other volume, or keep the image (`kubectl patch pv %s -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'`)",
		rbdutil.ErrImageInUse, ref, strings.Join(others, ", "), volume.Name)
}

// checkNodes returns an error if a node reports the image as in use or attached. The
// kubelet and the attach-detach controller name it POOL:IMAGE of the plugin.
func (p *Provisioner) checkNodes(ref rbdutil.ImageRef) error {
	nodes, err := p.Nodes.List(labels.Everything())
	if err != nil {
		return preflightf("list nodes: %w", err)
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
