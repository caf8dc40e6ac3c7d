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

// wholeRun is what is known of all tests together, for what can be said only at the
// end: that the provisioner was allowed no more than it needs, and that no key is
// anywhere.
type wholeRun struct {
	begun time.Time

	mu sync.Mutex
	// keys are those of all tests, and that of Ceph's administrator.
	keys     map[string]struct{}
	adminKey string
	// restarts are the times in which the API server was down or coming up.
	restarts []interval
	// record is of the objects in the cluster; nil before the first test.
	record *framework.Recording
}

type interval struct{ from, to time.Time }

// thisRun is the one of this process.
var thisRun = &wholeRun{begun: time.Now(), keys: map[string]struct{}{}}

// watch begins to write down what there is in the cluster, with the first test.
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

// addKeys adds the keys of a test. None of them may be that of Ceph's administrator: all
// tests run with the rights that the documentation asks for.
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

// check is for the end of the run. ok: all tests have passed so far.
func (r *wholeRun) check(out io.Writer, ok bool) error {
	logs := framework.LabLogs()
	if r.record == nil {
		_, _ = fmt.Fprintln(out, "no test was run in a lab: rights and keys of the whole run are not checked")
		return nil
	}
	if err := r.record.Stop(); err != nil {
		return err
	}
	all := ok && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
	if !all {
		_, _ = fmt.Fprintln(out, "not all tests were run, or passed: whether there are rights that nobody uses is not checked")
	}
	ctx, cancel := context.WithTimeout(context.Background(), framework.Timeout)
	defer cancel()
	return errors.Join(r.checkRights(ctx, logs, all), r.checkKeys(out, logs))
}
