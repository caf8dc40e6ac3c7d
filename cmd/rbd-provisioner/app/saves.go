package app

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// savingClient is a client that tells when a volume has been saved. The library does
// so on its own, some time after Provision has returned, and tells nobody.
type savingClient struct {
	kubernetes.Interface
	saved func(volume string)
}

// CoreV1 implements kubernetes.Interface.
func (c savingClient) CoreV1() corev1client.CoreV1Interface {
	return savingCore{c.Interface.CoreV1(), c.saved}
}

type savingCore struct {
	corev1client.CoreV1Interface
	saved func(volume string)
}

// PersistentVolumes implements corev1client.PersistentVolumesGetter.
func (c savingCore) PersistentVolumes() corev1client.PersistentVolumeInterface {
	return savingVolumes{c.CoreV1Interface.PersistentVolumes(), c.saved}
}

type savingVolumes struct {
	corev1client.PersistentVolumeInterface
	saved func(volume string)
}

// Create implements corev1client.PersistentVolumeInterface.
func (v savingVolumes) Create(ctx context.Context, volume *corev1.PersistentVolume, opts metav1.CreateOptions) (*corev1.PersistentVolume, error) {
	created, err := v.PersistentVolumeInterface.Create(ctx, volume, opts)
	if err == nil || apierrors.IsAlreadyExists(err) {
		v.saved(volume.Name)
	}
	return created, err
}
