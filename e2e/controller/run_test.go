//go:build e2e

package controller

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest/cephcli"
)

// wholeRun has the data of all tests for the checks at the end: the provisioner used only the
// permissions that it needs, and no output contains a key.
type wholeRun struct {
	begun time.Time

	mu sync.Mutex
	// keys has the keys of all tests and the key of Ceph's administrator.
	keys     map[string]struct{}
	adminKey string
	// restarts has the times in which the API server was down or starting.
	restarts []interval
	// record has the objects in the cluster; nil before the first test.
	record *framework.Recording
}

type interval struct{ from, to time.Time }

// thisRun is the run of this process.
var thisRun = &wholeRun{begun: time.Now(), keys: map[string]struct{}{}}

// watch starts the recording of the cluster's objects with the first test.
func (r *wholeRun) watch(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	logs := framework.LabLogs()
	if r.record != nil || logs == "" {
		return
	}
	r.adminKey = cephcli.FromEnv(t).Run(t, "ceph", "auth", "get-key", "client.admin")
	r.keys[r.adminKey] = struct{}{}
	r.record = framework.StartRecording(t, filepath.Join(logs, fmt.Sprintf("objects-%d.json", os.Getpid())))
}

// addKeys adds the keys of a test. The key of Ceph's administrator must not be among them: all
// tests use the documented capabilities.
func (r *wholeRun) addKeys(t *testing.T, keys ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range keys {
		if key == r.adminKey {
			t.Error("the provisioner was given the key of client.admin")
		}
		r.keys[key] = struct{}{}
	}
}

func (r *wholeRun) addRestart(from, to time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restarts = append(r.restarts, interval{from, to})
}

// check runs the checks at the end of the run. ok is true if all tests have passed.
func (r *wholeRun) check(out io.Writer, ok bool) error {
	logs := framework.LabLogs()
	if r.record == nil {
		_, _ = fmt.Fprintln(out, "no test was run in a lab: permissions and keys of the whole run are not checked")
		return nil
	}
	if err := r.record.Stop(); err != nil {
		return err
	}
	all := ok && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
	if !all {
		_, _ = fmt.Fprintln(out, "not all tests were run and passed: unused permissions are not checked")
	}
	ctx, cancel := context.WithTimeout(context.Background(), framework.Timeout)
	defer cancel()
	return errors.Join(r.checkRights(ctx, logs, all), r.checkKeys(out, logs))
}
