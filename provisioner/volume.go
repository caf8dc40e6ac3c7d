package provisioner

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// volumeFor writes the PersistentVolume down, as a person would who made the image
// by hand. The library adds the claim reference, the class and provisioned-by.
func volumeFor(opts controller.ProvisionOptions, params parameters, img rbdutil.Image) *corev1.PersistentVolume {
	class, claim := opts.StorageClass, opts.PVC
	mode := modeOf(claim)
	reclaim := ptr.Deref(class.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        opts.PVName,
			Annotations: annotationsFor(params),
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{
				corev1.ResourceStorage: *resource.NewQuantity(int64(img.Size), resource.BinarySI),
			},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: reclaim,
			MountOptions:                  class.MountOptions,
			VolumeMode:                    &mode,
			NodeAffinity:                  affinityFor(class.AllowedTopologies),
			PersistentVolumeSource:        corev1.PersistentVolumeSource{RBD: sourceFor(params, img, mode)},
		},
	}
}

func sourceFor(params parameters, img rbdutil.Image, mode corev1.PersistentVolumeMode) *corev1.RBDPersistentVolumeSource {
	source := &corev1.RBDPersistentVolumeSource{
		CephMonitors: params.monitors,
		RBDPool:      img.Pool,
		RBDImage:     img.Name,
		RadosUser:    params.userID,
		Keyring:      params.keyring,
	}
	if params.userSecret.Name != "" {
		source.SecretRef = &corev1.SecretReference{Name: params.userSecret.Name, Namespace: params.userSecret.Namespace}
	}
	if mode == corev1.PersistentVolumeFilesystem {
		source.FSType = params.fsType
	}
	return source
}

func annotationsFor(params parameters) map[string]string {
	annotations := map[string]string{
		annDeletionSecretName:      params.adminSecret.Name,
		annDeletionSecretNamespace: params.adminSecret.Namespace,
		annAdminID:                 params.adminID,
		annImageFormat:             imageFormat,
		annImageFeatures:           params.layout.Features.String(),
	}
	if params.trashRetention > 0 {
		annotations[annTrashRetention] = params.trashRetention.String()
	}
	return annotations
}

// affinityFor lets the volume be used where the class says, and nowhere else. The
// image itself can be reached from everywhere.
func affinityFor(terms []corev1.TopologySelectorTerm) *corev1.VolumeNodeAffinity {
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
