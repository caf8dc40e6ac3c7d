package library

import (
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
)

// DeferredHandlers is an informer that adds event handlers only when AttachHandlers is called.
//
// Flaw: the library adds its handlers when it is created, but empties its queues only in Run. The
// queues of a standby would grow until it leads.
// Remove with the version that adds its handlers in Run. v13 does not.
type DeferredHandlers struct {
	cache.SharedIndexInformer

	mu     sync.Mutex
	attach []func() error
}

// AddEventHandlerWithResyncPeriod implements cache.SharedInformer. It returns no registration, and
// the library does not use one.
func (d *DeferredHandlers) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, resync time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attach = append(d.attach, func() error {
		_, err := d.SharedIndexInformer.AddEventHandlerWithResyncPeriod(handler, resync)
		return err
	})
	return nil, nil
}

// AttachHandlers adds the handlers. Each receives the objects in the cache first.
func (d *DeferredHandlers) AttachHandlers() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, attach := range d.attach {
		if err := attach(); err != nil {
			return err
		}
	}
	d.attach = nil
	return nil
}

// ReadOnlyStore is an informer whose store ignores Add.
//
// Flaw: the library adds each volume that it has saved to the cache of the informer, and overwrites
// later states of the volume. If the volume is released immediately, the library misses its deletion.
// Remove with v11.
type ReadOnlyStore struct{ cache.SharedIndexInformer }

// GetStore implements cache.SharedInformer.
func (r ReadOnlyStore) GetStore() cache.Store { return readOnlyStore{r.SharedIndexInformer.GetStore()} }

type readOnlyStore struct{ cache.Store }

// Add implements cache.Store.
func (readOnlyStore) Add(any) error { return nil }
