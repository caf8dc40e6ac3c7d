package library

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
	"k8s.io/utils/ptr"
)

// Client is the Kubernetes client of the library. It checks and observes its writes of PersistentVolumes.
//
// Flaws, none of which is fixed in v13:
//  1. The library saves volumes after Provision has returned, and does not report the result.
//  2. It deletes a volume without preconditions, although the reclaim policy may have changed.
//  3. It removes its finalizer from a volume whose image may have to be restored from the trash.
//
// Remove with the version that has hooks for the three.
type Client struct {
	kubernetes.Interface
	Creates   PVCreateObserver
	Deletions *ConfirmedDeletions
	// CheckFinalizer returns an error if the finalizer must stay on the volume of that name.
	CheckFinalizer func(ctx context.Context, volume string) error
}

// PVCreateObserver is called after each attempt to create a PersistentVolume.
type PVCreateObserver struct {
	Succeeded func(volume *corev1.PersistentVolume)
	Failed    func(volume *corev1.PersistentVolume, err error)
}

// CoreV1 implements kubernetes.Interface.
func (c Client) CoreV1() corev1client.CoreV1Interface {
	return coreClient{c.Interface.CoreV1(), c}
}

type coreClient struct {
	corev1client.CoreV1Interface
	client Client
}

// PersistentVolumes implements corev1client.PersistentVolumesGetter.
func (c coreClient) PersistentVolumes() corev1client.PersistentVolumeInterface {
	return volumeClient{c.CoreV1Interface.PersistentVolumes(), c.client}
}

type volumeClient struct {
	corev1client.PersistentVolumeInterface
	client Client
}

// Create implements corev1client.PersistentVolumeInterface.
func (v volumeClient) Create(ctx context.Context, volume *corev1.PersistentVolume, opts metav1.CreateOptions) (*corev1.PersistentVolume, error) {
	created, err := v.PersistentVolumeInterface.Create(ctx, volume, opts)
	if err == nil || apierrors.IsAlreadyExists(err) {
		v.client.Creates.Succeeded(volume)
	} else {
		v.client.Creates.Failed(volume, err)
	}
	return created, err
}

// Delete implements corev1client.PersistentVolumeInterface.
func (v volumeClient) Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error {
	preconditions := v.client.Deletions.pop(name)
	if preconditions == nil {
		return fmt.Errorf("delete PersistentVolume %s: the deletion is not confirmed", name)
	}
	opts.Preconditions = preconditions
	return v.PersistentVolumeInterface.Delete(ctx, name, opts)
}

// Patch implements corev1client.PersistentVolumeInterface. The library patches finalizers only.
func (v volumeClient) Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*corev1.PersistentVolume, error) {
	if err := v.client.CheckFinalizer(ctx, name); err != nil {
		return nil, err
	}
	return v.PersistentVolumeInterface.Patch(ctx, name, pt, data, opts, subresources...)
}

// ConfirmedDeletions holds the versions of volumes whose deletion was confirmed, by name. A volume is
// deleted only if it has not changed since: its owner may have set another reclaim policy.
type ConfirmedDeletions struct {
	mu       sync.Mutex
	versions map[string]metav1.Preconditions
}

// Add records that the deletion of this version of the volume was confirmed.
func (d *ConfirmedDeletions) Add(volume *corev1.PersistentVolume) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.versions == nil {
		d.versions = map[string]metav1.Preconditions{}
	}
	d.versions[volume.Name] = metav1.Preconditions{UID: ptr.To(volume.UID), ResourceVersion: ptr.To(volume.ResourceVersion)}
}

// pop removes and returns the preconditions of a deletion. It returns nil if there are none.
func (d *ConfirmedDeletions) pop(name string) *metav1.Preconditions {
	d.mu.Lock()
	defer d.mu.Unlock()
	version, ok := d.versions[name]
	delete(d.versions, name)
	if !ok {
		return nil
	}
	return &version
}
