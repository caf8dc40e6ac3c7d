//go:build e2e

package faults

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// usage is what a process holds that it may forget to give back.
type usage struct {
	goroutines, threads, files, rssMiB, connections int
}

// What may come on top without being a leak: goroutines and files of connections to
// the API server and of HTTP clients, threads that Go and librados keep for the next
// time, and memory that malloc does not give back.
var tolerance = usage{goroutines: 15, threads: 12, files: 15, rssMiB: 64}

// ofConnection is what one more connection to Ceph holds, and rightly so: it is kept
// for a while after its last use.
var ofConnection = usage{threads: 20, files: 20, rssMiB: 16}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d threads, %d files, %d MiB, %d connections to Ceph",
		u.goroutines, u.threads, u.files, u.rssMiB, u.connections)
}

// plus is usage and some more.
func (u usage) plus(more usage, times int) usage {
	return usage{
		u.goroutines + more.goroutines*times, u.threads + more.threads*times, u.files + more.files*times,
		u.rssMiB + more.rssMiB*times, u.connections + more.connections*times,
	}
}

func (u usage) within(limit usage) bool {
	return u.goroutines <= limit.goroutines && u.threads <= limit.threads && u.files <= limit.files && u.rssMiB <= limit.rssMiB
}

// usage measures the provisioner.
func (r *rig) usage(ctx context.Context) (usage, error) {
	_, metrics, err := r.p.TryGet(ctx, "/metrics")
	if err != nil {
		return usage{}, err
	}
	folder := fmt.Sprintf("/proc/%d/", r.p.PID())
	status, err := os.ReadFile(folder + "status")
	if err != nil {
		return usage{}, err
	}
	files, err := os.ReadDir(folder + "fd")
	if err != nil {
		return usage{}, err
	}
	u := usage{files: len(files)}
	for _, value := range []struct {
		into       *int
		text, name string
	}{
		{&u.goroutines, metrics, "go_goroutines "},
		{&u.connections, metrics, "rbd_provisioner_ceph_connections "},
		{&u.threads, string(status), "Threads:"},
		{&u.rssMiB, string(status), "VmRSS:"},
	} {
		if *value.into, err = valueOf(value.text, value.name); err != nil {
			return usage{}, err
		}
	}
	u.rssMiB >>= 10 // it is in KiB
	return u, nil
}

// valueOf finds the number in the line that begins with the name.
func valueOf(text, name string) (int, error) {
	_, rest, found := strings.Cut("\n"+text, "\n"+name)
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, fmt.Errorf("no %s in %q", name, text)
	}
	return strconv.Atoi(fields[0])
}

// wantUsage waits until the provisioner holds no more than it did before.
func (r *rig) wantUsage(t *testing.T, before usage) {
	t.Helper()
	var after usage
	r.Await(t, "the provisioner to give back what it has used", framework.Timeout, func(ctx context.Context) (err error) {
		if after, err = r.usage(ctx); err != nil {
			return err
		}
		limit := before.plus(tolerance, 1).plus(ofConnection, max(0, after.connections-before.connections))
		if !after.within(limit) {
			return fmt.Errorf("it has %s; before there were %s, allowed are %s", after, before, limit)
		}
		return nil
	})
	t.Logf("before: %s; after: %s", before, after)
}
