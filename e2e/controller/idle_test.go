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

// state has the resources of a process that a fault may leak.
type state struct {
	goroutines, memory float64
}

const (
	// moreGoroutines allows for a connection or a retry that is about to end.
	moreGoroutines = 10
	// moreMemory allows for memory that the Go runtime and the C library keep.
	moreMemory = 64 << 20
)

// awaitIdle waits until a process is idle: its queues are empty and no operation runs, inside
// Ceph or not.
func awaitIdle(t *testing.T, e *framework.Env, p *process) state {
	t.Helper()
	var now state
	e.Await(t, "the provisioner to be idle", framework.Timeout, func(ctx context.Context) (err error) {
		now, err = idleState(ctx, p)
		return err
	})
	return now
}

// wantSameIdleState waits until a process is idle with the same resources as before.
func wantSameIdleState(t *testing.T, e *framework.Env, p *process, before state) {
	t.Helper()
	e.Await(t, "goroutines and memory to be released", framework.Timeout, func(ctx context.Context) error {
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

// idleState returns an error while the process has work.
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
			// The depth of the volumes' queue can be negative: the library removes deleted
			// volumes from it without taking them.
			if value > 0 {
				return state{}, fmt.Errorf("%s is %g", sample, value)
			}
		}
	}
	if queues == 0 {
		return state{}, errors.New("no metrics of queues")
	}
	return state{goroutines: values["go_goroutines"], memory: values["process_resident_memory_bytes"]}, nil
}

// failedRequests returns the number of requests to the API server without a response.
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
