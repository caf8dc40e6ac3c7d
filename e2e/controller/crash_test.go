//go:build e2e

package controller

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestACrashLeavesNoKey aborts a provisioner that has keys in its memory, like a failed
// assertion inside Ceph's libraries. The system's settings allow a core file.
func TestACrashLeavesNoKey(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "plain")
	p := start(t, e, "-v=10", "--leader-election=false")
	claim := e.Claim(t, "before", class)
	e.AwaitBound(t, claim)
	unlimited := &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(p.PID(), unix.RLIMIT_CORE, unlimited, nil); err != nil {
		t.Fatal(err)
	}
	if code := p.Abort(t); code != 2 {
		t.Errorf("exit code %d, want that of a Go program that crashes", code)
	}
	if p.DumpedCore() {
		t.Error("the process dumped core")
	}
	if !strings.Contains(p.Log(), "SIGABRT: abort") {
		t.Error("the log has no SIGABRT")
	}
	if found := revealed(p.Log(), e.Key.Reveal()); found != "" {
		t.Errorf("the log has the key: %s", found)
	}
	start(t, e, "--leader-election=false")
	wantBoundOnce(t, e, append(createClaims(t, e, class, 1), claim))
}
