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

// usage has a process's resources that may leak.
type usage struct {
	goroutines, threads, files, rssMiB, connections int
}

// tolerance is the increase that is not a leak: goroutines and files of HTTP connections,
// threads that Go and librados reuse, and memory that malloc keeps.
var tolerance = usage{goroutines: 15, threads: 12, files: 15, rssMiB: 64}

// ofConnection is the usage of one more connection to Ceph, which is kept for a while after its
// last use.
var ofConnection = usage{threads: 20, files: 20, rssMiB: 16}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d threads, %d files, %d MiB, %d connections to Ceph",
		u.goroutines, u.threads, u.files, u.rssMiB, u.connections)
}

// plus adds a multiple of more.
func (u usage) plus(more usage, times int) usage {
	return usage{
		u.goroutines + more.goroutines*times, u.threads + more.threads*times, u.files + more.files*times,
		u.rssMiB + more.rssMiB*times, u.connections + more.connections*times,
	}
}

func (u usage) within(limit usage) bool {
	return u.goroutines <= limit.goroutines && u.threads <= limit.threads && u.files <= limit.files && u.rssMiB <= limit.rssMiB
}

// usage measures the provisioner's usage.
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
	u.rssMiB >>= 10 // from KiB
	return u, nil
}

// valueOf returns the number in the line that begins with the name.
func valueOf(text, name string) (int, error) {
	_, rest, found := strings.Cut("\n"+text, "\n"+name)
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, fmt.Errorf("no %s in %q", name, text)
	}
	return strconv.Atoi(fields[0])
}

// wantUsage waits until the provisioner's usage is as before, within the tolerance.
func (r *rig) wantUsage(t *testing.T, before usage) {
	t.Helper()
	var after usage
	r.Await(t, "the provisioner to release its resources", framework.Timeout, func(ctx context.Context) (err error) {
		if after, err = r.usage(ctx); err != nil {
			return err
		}
		limit := before.plus(tolerance, 1).plus(ofConnection, max(0, after.connections-before.connections))
		if !after.within(limit) {
			return fmt.Errorf("usage is %s; it was %s, the limit is %s", after, before, limit)
		}
		return nil
	})
	t.Logf("before: %s; after: %s", before, after)
}
