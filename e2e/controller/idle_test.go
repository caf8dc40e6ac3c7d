//go:build e2e

package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// state is what a process has of the things that a fault may make it lose or pile up.
type state struct {
	goroutines, memory float64
}

const (
	// moreGoroutines are those of a connection or a retry that is still to end.
	moreGoroutines = 10
	// moreMemory is what the Go runtime and the C library keep for themselves.
	moreMemory = 64 << 20
)

// awaitIdle waits until a process has nothing to do: nothing in its queues, and no
// worker with something in hand, inside Ceph or not.
func awaitIdle(t *testing.T, e *framework.Env, p *process) state {
	t.Helper()
	var now state
	e.Await(t, "the provisioner to be at rest", framework.Timeout, func(ctx context.Context) (err error) {
		now, err = idleState(ctx, p)
		return err
	})
	return now
}

// wantSameIdleState waits until a process is at rest as it was before.
func wantSameIdleState(t *testing.T, e *framework.Env, p *process, before state) {
	t.Helper()
	e.Await(t, "goroutines and memory to come back", framework.Timeout, func(ctx context.Context) error {
		now, err := idleState(ctx, p)
		switch {
		case err != nil:
			return err
		case now.goroutines > before.goroutines+moreGoroutines:
			return fmt.Errorf("%g goroutines, %g before", now.goroutines, before.goroutines)
		case now.memory > before.memory+moreMemory:
			return fmt.Errorf("%.0f MiB of memory, %.0f before", now.memory/(1<<20), before.memory/(1<<20))
		}
		return nil
	})
}

// idleState is an error while the process has something to do.
func idleState(ctx context.Context, p *process) (state, error) {
	values, err := samplesOf(ctx, p)
	if err != nil {
		return state{}, err
	}
	queues := 0
	for sample, value := range values {
		name, _, _ := strings.Cut(sample, "{")
		switch name {
		case "workqueue_depth", "workqueue_unfinished_work_seconds", "rbd_provisioner_ceph_operations_in_flight":
			queues++
			// The depth of the volumes' queue goes below 0: the library takes a volume that is
			// deleted off it without having got it from it.
			if value > 0 {
				return state{}, fmt.Errorf("%s is %g", sample, value)
			}
		}
	}
	if queues == 0 {
		return state{}, errors.New("it has no queues")
	}
	return state{goroutines: values["go_goroutines"], memory: values["process_resident_memory_bytes"]}, nil
}

// failedRequests counts the requests to the API server that got no answer.
func failedRequests(ctx context.Context, p *process) (float64, error) {
	values, err := samplesOf(ctx, p)
	n := 0.0
	for sample, value := range values {
		if strings.HasPrefix(sample, `rest_client_requests_total{code="<error>"`) {
			n += value
		}
	}
	return n, err
}
