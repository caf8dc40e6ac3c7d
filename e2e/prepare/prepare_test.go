package prepare

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMissingPackages(t *testing.T) {
	t.Parallel()
	report := "ceph-mon installed\nlibc6:amd64 installed\nudev config-files\netcd-server not-installed\n"
	got := withoutInstalled([]string{"ceph-mon", "udev", "libc6", "etcd-server", "runc"}, report)
	if diff := cmp.Diff([]string{"udev", "etcd-server", "runc"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestStepReportsBeginningAndEnd(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := NewProgress(&out, "lab x")
	failure := errors.New("no")
	for _, result := range []error{nil, failure, context.Canceled} {
		err := p.Step(t.Context(), "doing", func(context.Context) error { return result })
		if !errors.Is(err, result) {
			t.Errorf("got %v, want %v", err, result)
		}
	}
	for _, want := range []string{"lab x: doing …\n", "lab x: doing: done in ", "lab x: doing: failed after ", "lab x: doing: interrupted after "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(strings.Repeat("early\n", 100000)+"late\nlast\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := Tail(path, 2); got != "late\nlast" {
		t.Errorf("got %q", got)
	}
	if got := Tail(path+"x", 2); !strings.Contains(got, "no such file") {
		t.Errorf("got %q", got)
	}
}

func TestLockIsExclusiveAndLeavesNoFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.lock")
	file, err := Lock(t.Context(), path, func() { t.Error("waited although the lock was free") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var waited bool
	if _, err := Lock(ctx, path, func() { waited = true }); !errors.Is(err, context.DeadlineExceeded) || !waited {
		t.Errorf("second lock: %v, waited: %t", err, waited)
	}
	Unlock(file)
	if _, err := os.Stat(path); err == nil {
		t.Error("the lock file was not removed")
	}
	file, err = Lock(t.Context(), path, func() {})
	if err != nil {
		t.Fatal(err)
	}
	Unlock(file)
}
