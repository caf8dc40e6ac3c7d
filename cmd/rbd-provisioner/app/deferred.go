package app

import (
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
)

// deferredHandlers is an informer as the library sees it, which hands no event on
// until it is told to. The library puts what it hears of into its queues from the
// moment of its making, and takes it out only when it leads: those of a replica that
// stands by would grow for as long as it does.
type deferredHandlers struct {
	cache.SharedIndexInformer

	mu     sync.Mutex
	attach []func() error
}

// AddEventHandlerWithResyncPeriod implements cache.SharedInformer. There is no
// registration yet; the library does not look at it.
func (d *deferredHandlers) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, resync time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attach = append(d.attach, func() error {
		_, err := d.SharedIndexInformer.AddEventHandlerWithResyncPeriod(handler, resync)
		return err
	})
	return nil, nil
}

// attachHandlers begins to hand events on, first of all of what is in the cache.
func (d *deferredHandlers) attachHandlers() error {
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
