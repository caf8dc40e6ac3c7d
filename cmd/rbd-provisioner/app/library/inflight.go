package library

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// InFlight counts running operations and volumes that are not saved yet, and locks volume names.
//
// Flaw: Run returns without waiting for its workers, and drops the volumes that could not be saved
// yet. The image of such a volume is orphaned if its claim is deleted before the next leader starts.
// Remove with the version that also waits for unsaved volumes. v12 and v13 wait for workers only.
type InFlight struct {
	mu       sync.Mutex
	running  int
	unsaved  map[string]struct{} // names of volumes that Provision has returned
	locked   map[string]struct{} // names of volumes that are being provisioned, or reserved
	draining bool
	idle     chan struct{} // closed when draining and nothing is left
}

// Begin counts an operation until end is called. It reports false while draining.
func (f *InFlight) Begin() (end func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.draining {
		return nil, false
	}
	f.running++
	return f.end, true
}

func (f *InFlight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	f.closeIfIdle()
}

// lock reports false if the volume is locked already.
func (f *InFlight) lock(volume string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tryLock(volume)
}

// tryLock is lock for callers that hold f.mu.
func (f *InFlight) tryLock(volume string) bool {
	if _, locked := f.locked[volume]; locked {
		return false
	}
	if f.locked == nil {
		f.locked = map[string]struct{}{}
	}
	f.locked[volume] = struct{}{}
	return true
}

func (f *InFlight) unlock(volume string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.locked, volume)
}

// TryReserve prevents a volume from being provisioned until it is released. It reports false if the
// volume is being provisioned or is not saved yet.
func (f *InFlight) TryReserve(volume string) (release func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, unsaved := f.unsaved[volume]; unsaved || !f.tryLock(volume) {
		return nil, false
	}
	return func() { f.unlock(volume) }, true
}

// markUnsaved records a volume that must be saved: without it, its image is orphaned.
func (f *InFlight) markUnsaved(volume string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unsaved == nil {
		f.unsaved = map[string]struct{}{}
	}
	f.unsaved[volume] = struct{}{}
}

// MarkSaved records that the API server has stored a volume.
func (f *InFlight) MarkSaved(volume *corev1.PersistentVolume) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, unsaved := f.unsaved[volume.Name]; unsaved {
		delete(f.unsaved, volume.Name)
		f.closeIfIdle()
	}
}

func (f *InFlight) closeIfIdle() {
	if f.draining && f.left() == 0 {
		close(f.idle)
	}
}

func (f *InFlight) left() int { return f.running + len(f.unsaved) }

// Drain rejects new operations and waits until nothing is left or ctx is done. It returns the number
// of operations and unsaved volumes that are left. It must be called only once.
func (f *InFlight) Drain(ctx context.Context) int {
	f.mu.Lock()
	f.draining = true
	f.idle = make(chan struct{})
	f.closeIfIdle()
	f.mu.Unlock()
	select {
	case <-f.idle:
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left()
}
