package leadership

import (
	"sync"
	"time"

	"k8s.io/component-base/logs"
	"k8s.io/klog/v2"
)

// logTimeout limits how long the last log line delays an exit. Standard error may be a full pipe.
const logTimeout = 100 * time.Millisecond

// Exiter exits without stopping anything in order, because another process may lead already.
type Exiter struct {
	exit func(code int)
	once sync.Once
}

// NewExiter returns an Exiter that calls exit.
func NewExiter(exit func(code int)) *Exiter { return &Exiter{exit: exit} }

// Exit logs the reason and exits with code 1.
func (e *Exiter) Exit(reason error) {
	e.once.Do(func() {
		written := make(chan struct{})
		go func() {
			defer close(written)
			klog.Background().Error(reason, "Failed to continue, exiting immediately")
			logs.FlushLogs()
		}()
		select {
		case <-written:
		case <-time.After(logTimeout):
		}
		e.exit(1)
	})
}
