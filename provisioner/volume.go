package provisioner

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// newVolume returns the PersistentVolume of an image. The library adds the claim
// reference, the class and the annotation provisioned-by.
func newVolume(class *storagev1.StorageClass, params storageclass.Parameters, req request, img rbdutil.Image) *corev1.PersistentVolume {
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: req.volume, Annotations: volumeAnnotations(params)},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{
				corev1.ResourceStorage: *resource.NewQuantity(int64(img.Size), resource.BinarySI),
			},
			AccessModes:                   req.accessModes,
			PersistentVolumeReclaimPolicy: ptr.Deref(class.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete),
			MountOptions:                  class.MountOptions,
			VolumeMode:                    ptr.To(req.mode),
			NodeAffinity:                  nodeAffinity(class.AllowedTopologies),
			PersistentVolumeSource:        corev1.PersistentVolumeSource{RBD: volumeSource(params, img, req.mode)},
		},
	}
	if img.Record.Source != nil {
		adaptClone(volume, req, *img.Record.Source)
	}
	return volume
}

func volumeSource(params storageclass.Parameters, img rbdutil.Image, mode corev1.PersistentVolumeMode) *corev1.RBDPersistentVolumeSource {
	rbd := &corev1.RBDPersistentVolumeSource{
		CephMonitors: params.Monitors,
		RBDPool:      img.Pool,
		RBDImage:     img.Name,
		RadosUser:    params.UserID,
		Keyring:      params.Keyring,
	}
	if params.UserSecret.Name != "" {
		rbd.SecretRef = &corev1.SecretReference{Name: params.UserSecret.Name, Namespace: params.UserSecret.Namespace}
	}
	if mode == corev1.PersistentVolumeFilesystem {
		rbd.FSType = params.FSType
	}
	return rbd
}

func volumeAnnotations(params storageclass.Parameters) map[string]string {
	annotations := map[string]string{
		annDeletionSecretName:      params.AdminSecret.Name,
		annDeletionSecretNamespace: params.AdminSecret.Namespace,
		annAdminID:                 params.AdminID,
		annImageFormat:             storageclass.ImageFormat,
		annImageFeatures:           params.Layout.Features.String(),
	}
	if params.TrashRetention > 0 {
		annotations[annTrashRetention] = params.TrashRetention.String()
	}
	return annotations
}

// nodeAffinity restricts the volume to the topologies of the class. The image itself is
// accessible from all nodes.
func nodeAffinity(terms []corev1.TopologySelectorTerm) *corev1.VolumeNodeAffinity {
	var selector corev1.NodeSelector
	for _, term := range terms {
		var requirements []corev1.NodeSelectorRequirement
		for _, e := range term.MatchLabelExpressions {
			requirements = append(requirements, corev1.NodeSelectorRequirement{
				Key: e.Key, Operator: corev1.NodeSelectorOpIn, Values: e.Values,
			})
		}
		if len(requirements) > 0 {
			selector.NodeSelectorTerms = append(selector.NodeSelectorTerms,
				corev1.NodeSelectorTerm{MatchExpressions: requirements})
		}
	}
	if len(selector.NodeSelectorTerms) == 0 {
		return nil
	}
	return &corev1.VolumeNodeAffinity{Required: &selector}
}
