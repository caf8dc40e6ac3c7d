// Package library adapts sig-storage-lib-external-provisioner v10. Each type works around flaws of
// that library and names the version with which it can be removed.
package library

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"
)

// Provisioner counts the operations of a provisioner in InFlight, and rejects them while draining.
//
// Flaw: the workers of the library continue with its queues while it stops.
// Remove together with InFlight. In v13, the workers still empty the queues.
type Provisioner struct {
	controller.BlockProvisioner
	*InFlight
}

var _ controller.BlockProvisioner = Provisioner{}

// Provision implements controller.Provisioner.
func (p Provisioner) Provision(ctx context.Context, opts controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	end, ok := p.Begin()
	if !ok {
		return nil, controller.ProvisioningNoChange, errDraining()
	}
	defer end()
	if !p.lock(opts.PVName) {
		return nil, controller.ProvisioningNoChange, fmt.Errorf("an orphaned image of PersistentVolume %s is being removed: will be retried automatically", opts.PVName)
	}
	defer p.unlock(opts.PVName)
	volume, state, err := p.BlockProvisioner.Provision(ctx, opts)
	if err == nil {
		p.markUnsaved(volume.Name)
	}
	return volume, state, err
}

// Delete implements controller.Provisioner.
func (p Provisioner) Delete(ctx context.Context, volume *corev1.PersistentVolume) error {
	end, ok := p.Begin()
	if !ok {
		return errDraining()
	}
	defer end()
	return p.BlockProvisioner.Delete(ctx, volume)
}

// errDraining makes the library skip the object without an event. It must not be wrapped, because
// the library checks the type of the error itself.
func errDraining() error {
	return &controller.IgnoredError{Reason: "the provisioner is stopping"}
}
