package framework

import (
	"context"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// Timeout is the time limit for operations that take a second or two on an idle machine. On
	// a busy machine they also take less, unless something is broken.
	Timeout = 2 * time.Minute
	// PodTimeout is the limit for operations of a kubelet.
	PodTimeout = 4 * time.Minute
	// VolumeTimeout is the limit for the deletion of a volume. While a node still reports the
	// volume, the deletion is refused. It is retried after at most --retry-interval-max, a
	// minute by default.
	VolumeTimeout = 3 * time.Minute
	// interval is the polling interval.
	interval = 200 * time.Millisecond
	// minReportedWait is the minimum duration of a wait that is logged.
	minReportedWait = 5 * time.Second
)

// Await waits until check returns nil. After the timeout it fails the test with the last error
// and the events of the given objects.
func (e *Env) Await(t *testing.T, what string, timeout time.Duration, check func(context.Context) error, about ...metav1.Object) {
	t.Helper()
	start := time.Now()
	if err := await(t.Context(), timeout, check); err != nil {
		t.Fatalf("waiting for %s failed: %v%s", what, err, e.eventsAbout(about))
	}
	if took := time.Since(start); took > minReportedWait {
		t.Logf("waited %s for %s", took.Round(100*time.Millisecond), what)
	}
}

func await(ctx context.Context, timeout time.Duration, check func(context.Context) error) error {
	var last error
	start := time.Now()
	err := wait.PollUntilContextTimeout(ctx, interval, timeout, true, func(ctx context.Context) (bool, error) {
		if err := check(ctx); ctx.Err() == nil || last == nil {
			last = err // not the error of the context that ended during the check
		}
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("after %s: %w", time.Since(start).Round(100*time.Millisecond), last)
	}
	return nil
}
