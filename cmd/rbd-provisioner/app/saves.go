package app

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// savingClient is a client that tells what came of saving a volume. The library does so
// on its own, some time after Provision has returned, and tells nobody.
type savingClient struct {
	kubernetes.Interface
	saves saves
}

// saves is told of each attempt to save a volume.
type saves struct {
	saved  func(volume *corev1.PersistentVolume)
	failed func(volume *corev1.PersistentVolume, err error)
}

// CoreV1 implements kubernetes.Interface.
func (c savingClient) CoreV1() corev1client.CoreV1Interface {
	return savingCore{c.Interface.CoreV1(), c.saves}
}

type savingCore struct {
	corev1client.CoreV1Interface
	saves saves
}

// PersistentVolumes implements corev1client.PersistentVolumesGetter.
func (c savingCore) PersistentVolumes() corev1client.PersistentVolumeInterface {
	return savingVolumes{c.CoreV1Interface.PersistentVolumes(), c.saves}
}

type savingVolumes struct {
	corev1client.PersistentVolumeInterface
	saves saves
}

// Create implements corev1client.PersistentVolumeInterface.
func (v savingVolumes) Create(ctx context.Context, volume *corev1.PersistentVolume, opts metav1.CreateOptions) (*corev1.PersistentVolume, error) {
	created, err := v.PersistentVolumeInterface.Create(ctx, volume, opts)
	if err == nil || apierrors.IsAlreadyExists(err) {
		v.saves.saved(volume)
	} else {
		v.saves.failed(volume, err)
	}
	return created, err
}

// tellClaim returns what tells a claim that its volume cannot be saved, where an
// admission webhook is against it, say. It is still in the works.
func tellClaim(events record.EventRecorder) func(*corev1.PersistentVolume, error) {
	return func(volume *corev1.PersistentVolume, err error) {
		if claim := volume.Spec.ClaimRef; claim != nil {
			events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed",
				"volume %s is made, but the Kubernetes API server does not take it: %v: it is tried again by itself", volume.Name, err)
		}
	}
}
