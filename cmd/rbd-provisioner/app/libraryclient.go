package app

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
)

// libraryClient is the client of the library. It reports what came of saving a volume,
// which the library does some time after Provision has returned. It deletes a volume only if
// that has not changed since its deletion was confirmed: its owner may have set another
// reclaim policy meanwhile. And it takes the finalizer from a volume only if its image is not
// in the trash by mistake.
type libraryClient struct {
	kubernetes.Interface
	saves     saves
	deletions *confirmedDeletions
	// mayRelease returns why the finalizer must stay on a volume of that name.
	mayRelease func(ctx context.Context, volume string) error
}

// saves is told of each attempt to save a volume.
type saves struct {
	saved  func(volume *corev1.PersistentVolume)
	failed func(volume *corev1.PersistentVolume, err error)
}

// CoreV1 implements kubernetes.Interface.
func (c libraryClient) CoreV1() corev1client.CoreV1Interface {
	return libraryCore{c.Interface.CoreV1(), c}
}

type libraryCore struct {
	corev1client.CoreV1Interface
	client libraryClient
}

// PersistentVolumes implements corev1client.PersistentVolumesGetter.
func (c libraryCore) PersistentVolumes() corev1client.PersistentVolumeInterface {
	return libraryVolumes{c.CoreV1Interface.PersistentVolumes(), c.client}
}

type libraryVolumes struct {
	corev1client.PersistentVolumeInterface
	client libraryClient
}

// Create implements corev1client.PersistentVolumeInterface.
func (v libraryVolumes) Create(ctx context.Context, volume *corev1.PersistentVolume, opts metav1.CreateOptions) (*corev1.PersistentVolume, error) {
	created, err := v.PersistentVolumeInterface.Create(ctx, volume, opts)
	if err == nil || apierrors.IsAlreadyExists(err) {
		v.client.saves.saved(volume)
	} else {
		v.client.saves.failed(volume, err)
	}
	return created, err
}

// Delete implements corev1client.PersistentVolumeInterface.
func (v libraryVolumes) Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error {
	preconditions := v.client.deletions.take(name)
	if preconditions == nil {
		return fmt.Errorf("delete volume %s: its deletion is not confirmed", name)
	}
	opts.Preconditions = preconditions
	return v.PersistentVolumeInterface.Delete(ctx, name, opts)
}

// Patch implements corev1client.PersistentVolumeInterface. The library patches finalizers only.
func (v libraryVolumes) Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*corev1.PersistentVolume, error) {
	if err := v.client.mayRelease(ctx, name); err != nil {
		return nil, err
	}
	return v.PersistentVolumeInterface.Patch(ctx, name, pt, data, opts, subresources...)
}

// confirmedDeletions are the versions of volumes whose deletion was confirmed, by name.
type confirmedDeletions struct {
	mu       sync.Mutex
	versions map[string]metav1.Preconditions
}

func (d *confirmedDeletions) add(volume *corev1.PersistentVolume) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.versions == nil {
		d.versions = map[string]metav1.Preconditions{}
	}
	d.versions[volume.Name] = metav1.Preconditions{UID: ptr.To(volume.UID), ResourceVersion: ptr.To(volume.ResourceVersion)}
}

// take returns what must be true of the volume for its deletion, once.
func (d *confirmedDeletions) take(name string) *metav1.Preconditions {
	d.mu.Lock()
	defer d.mu.Unlock()
	version, ok := d.versions[name]
	delete(d.versions, name)
	if !ok {
		return nil
	}
	return &version
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
