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
	// Timeout is how long the tests wait for what takes a second or two on an idle
	// machine. On a busy one, too, nothing takes so long unless it is broken.
	Timeout = 2 * time.Minute
	// PodTimeout is the same for what involves a kubelet.
	PodTimeout = 4 * time.Minute
	// VolumeTimeout is the same for a volume to go. One that a node still reports when
	// its turn comes is refused, and tried again after at most --retry-interval-max, a
	// minute by default.
	VolumeTimeout = 3 * time.Minute
	// interval is how often they look.
	interval = 200 * time.Millisecond
	// minReportedWait is what is told of even if all goes well.
	minReportedWait = 5 * time.Second
)

// Await waits until check returns nil, and fails the test with what it returned
// last when that takes too long. With objects given, their events are told too.
func (e *Env) Await(t *testing.T, what string, timeout time.Duration, check func(context.Context) error, about ...metav1.Object) {
	t.Helper()
	start := time.Now()
	if err := await(t.Context(), timeout, check); err != nil {
		t.Fatalf("waiting for %s: %v%s", what, err, e.eventsAbout(about))
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
			last = err // and not that the time was up in the middle of it
		}
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("not after %s: %w", time.Since(start).Round(100*time.Millisecond), last)
	}
	return nil
}
