package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

func TestAFailedStepQuotesItsLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := &runner{progress: prepare.NewProgress(&out, "images"), logs: t.TempDir()}
	err := r.step(t.Context(), "try", "try it",
		command{argv: []string{"sh", "-c", "echo first"}},
		command{argv: []string{"sh", "-c", "cat; exit 3"}, stdin: "the reason"},
		command{argv: []string{"sh", "-c", "echo never"}})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("got error %v, want exit code 3", err)
	}
	for _, want := range []string{"try it: sh failed after", filepath.Join(r.logs, "try.log"), "first\n", "the reason"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error has no %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "never") {
		t.Errorf("a command ran after the failure:\n%v", err)
	}
	if got := out.String(); got != "images: try it …\n" {
		t.Errorf("progress was %q", got)
	}
}

func TestAnInterruptionReachesTheChildrenOfACommand(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r := &runner{progress: prepare.NewProgress(io.Discard, "images"), logs: t.TempDir()}
	start := time.Now()
	err := r.step(ctx, "sleep", "sleep", command{argv: []string{"sh", "-c", "sleep 60; true"}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want that of the context", err)
	}
	// The child has the log open, so the step would wait for it.
	if took := time.Since(start); took > grace/2 {
		t.Errorf("it took %s", took)
	}
}

func TestTheLockIsHeldAsLongAsACommandHasIt(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := prepare.Lock(t.Context(), path, func() {})
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{lock: lock}
	if _, err := r.output(t.Context(), "sh", "-c", "(sleep 2) >/dev/null 2>&1 &"); err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := prepare.Lock(ctx, path, func() {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v while a command had the lock", err)
	}
	again, err := prepare.Lock(t.Context(), path, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
