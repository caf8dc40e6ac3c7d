package app

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
)

// drainer knows how many operations run and which volumes are still to be saved, and
// lets nothing begin once it is draining: the library itself does not wait for its
// workers, and hands them all that is in its queues before it stops.
type drainer struct {
	*provisioner.Provisioner

	mu       sync.Mutex
	running  int
	unsaved  map[string]struct{} // the names of volumes that Provision has returned
	taken    map[string]struct{} // those of volumes that are being provisioned, or reserved
	draining bool
	idle     chan struct{} // closed when draining and nothing is left
}

var _ controller.BlockProvisioner = (*drainer)(nil)

// Provision implements controller.Provisioner.
func (d *drainer) Provision(ctx context.Context, opts controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	if !d.begin() {
		return nil, controller.ProvisioningNoChange, errDraining()
	}
	defer d.end()
	if !d.take(opts.PVName) {
		return nil, controller.ProvisioningNoChange, fmt.Errorf("an image that was left behind for volume %s is being removed: it is tried again by itself", opts.PVName)
	}
	defer d.give(opts.PVName)
	volume, state, err := d.Provisioner.Provision(ctx, opts)
	if err == nil {
		d.toBeSaved(volume.Name)
	}
	return volume, state, err
}

// Delete implements controller.Provisioner.
func (d *drainer) Delete(ctx context.Context, volume *corev1.PersistentVolume) error {
	if !d.begin() {
		return errDraining()
	}
	defer d.end()
	return d.Provisioner.Delete(ctx, volume)
}

// beginOther counts other work among the operations, until its end.
func (d *drainer) beginOther() (end func(), ok bool) {
	if !d.begin() {
		return nil, false
	}
	return d.end, true
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
	d.closeIfIdle()
}

// take makes the volume the caller's own, unless it is somebody's.
func (d *drainer) take(volume string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, taken := d.taken[volume]; taken {
		return false
	}
	if d.taken == nil {
		d.taken = map[string]struct{}{}
	}
	d.taken[volume] = struct{}{}
	return true
}

func (d *drainer) give(volume string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.taken, volume)
}

// reserve keeps a volume from being provisioned until it is released, unless it is being
// provisioned, or waits to be saved, right now.
func (d *drainer) reserve(volume string) (release func(), ok bool) {
	if !d.take(volume) {
		return nil, false
	}
	d.mu.Lock()
	_, unsaved := d.unsaved[volume]
	d.mu.Unlock()
	if unsaved {
		d.give(volume)
		return nil, false
	}
	return func() { d.give(volume) }, true
}

// toBeSaved notes a volume without which its image would be nobody's.
func (d *drainer) toBeSaved(volume string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unsaved == nil {
		d.unsaved = map[string]struct{}{}
	}
	d.unsaved[volume] = struct{}{}
}

// saved is told of each volume that is safe with the API server.
func (d *drainer) saved(volume *corev1.PersistentVolume) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, waiting := d.unsaved[volume.Name]; waiting {
		delete(d.unsaved, volume.Name)
		d.closeIfIdle()
	}
}

func (d *drainer) closeIfIdle() {
	if d.draining && d.left() == 0 {
		close(d.idle)
	}
}

func (d *drainer) left() int { return d.running + len(d.unsaved) }

// drain lets nothing begin any more and waits until nothing is left or ctx is done.
// It returns how many operations and volumes to be saved are left. It must be called
// once only.
func (d *drainer) drain(ctx context.Context) int {
	d.mu.Lock()
	d.draining = true
	d.idle = make(chan struct{})
	d.closeIfIdle()
	d.mu.Unlock()
	select {
	case <-d.idle:
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left()
}
