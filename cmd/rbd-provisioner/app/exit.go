package app

import (
	"sync"
	"time"

	"k8s.io/component-base/logs"
	"k8s.io/klog/v2"
)

// logTimeout bounds how long the last log line delays an exit. Standard error may be a full pipe.
const logTimeout = 100 * time.Millisecond

// exiter ends the process at once. Nothing is stopped in order: another process may lead already.
type exiter struct {
	exit func(code int)
	once sync.Once
}

// now logs the reason and exits with code 1.
func (e *exiter) now(reason error) {
	e.once.Do(func() {
		written := make(chan struct{})
		go func() {
			defer close(written)
			klog.Background().Error(reason, "Exiting at once")
			logs.FlushLogs()
		}()
		select {
		case <-written:
		case <-time.After(logTimeout):
		}
		e.exit(1)
	})
}
