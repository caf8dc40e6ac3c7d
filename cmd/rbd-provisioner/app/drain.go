package app

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
)

// drainer knows how many operations run, and lets none begin once it is draining:
// the library itself does not wait for its workers, and hands them all that is in
// its queues before it stops.
type drainer struct {
	*provisioner.Provisioner

	mu       sync.Mutex
	running  int
	draining bool
	idle     chan struct{} // closed when draining and nothing runs
}

var _ controller.BlockProvisioner = (*drainer)(nil)

// Provision implements controller.Provisioner.
func (d *drainer) Provision(ctx context.Context, opts controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	if !d.begin() {
		return nil, controller.ProvisioningNoChange, errDraining()
	}
	defer d.end()
	return d.Provisioner.Provision(ctx, opts)
}

// Delete implements controller.Provisioner.
func (d *drainer) Delete(ctx context.Context, volume *corev1.PersistentVolume) error {
	if !d.begin() {
		return errDraining()
	}
	defer d.end()
	return d.Provisioner.Delete(ctx, volume)
}

// errDraining makes the library pass over the object without an event. It must not
// be wrapped: the library compares types.
func errDraining() error {
	return &controller.IgnoredError{Reason: "this provisioner is stopping"}
}

func (d *drainer) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining {
		return false
	}
	d.running++
	return true
}

func (d *drainer) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running--
	if d.draining && d.running == 0 {
		close(d.idle)
	}
}

// drain lets nothing begin any more and waits until nothing runs or ctx is done.
// It returns how many operations still run. It must be called once only.
func (d *drainer) drain(ctx context.Context) int {
	d.mu.Lock()
	d.draining = true
	d.idle = make(chan struct{})
	if d.running == 0 {
		close(d.idle)
	}
	d.mu.Unlock()
	select {
	case <-d.idle:
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running
}
