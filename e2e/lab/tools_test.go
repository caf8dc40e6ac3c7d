package lab

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMissingPackages(t *testing.T) {
	t.Parallel()
	report := "ceph-mon installed\nlibc6:amd64 installed\nudev config-files\netcd-server not-installed\n"
	got := without([]string{"ceph-mon", "udev", "libc6", "etcd-server", "runc"}, report)
	if diff := cmp.Diff([]string{"udev", "etcd-server", "runc"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPolicyIsRestored(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{
		"none":              "",
		"somebody's":        "#!/bin/sh\nexit 0\n",
		"ours, interrupted": policyText,
	} {
		policy := filepath.Join(t.TempDir(), "policy-rc.d")
		if before != "" {
			if err := os.WriteFile(policy, []byte(before), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		restore, err := forbidDaemons(policy)
		if err != nil {
			t.Fatal(err)
		}
		if !exists(policy) {
			t.Errorf("%s: there is no policy", name)
		}
		restore()
		after, _ := os.ReadFile(policy)
		if keep := before != policyText; keep && string(after) != before || !keep && len(after) > 0 {
			t.Errorf("%s: %q afterwards", name, after)
		}
	}
}

func TestStepReportsBeginningAndEnd(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newProgress(&out, "x")
	failure := errors.New("no")
	for _, result := range []error{nil, failure, context.Canceled} {
		err := p.step(t.Context(), "doing", func(context.Context) error { return result })
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

func TestLookPathGoesByTheLastPATHAndNeedsAProgram(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"program": 0o755, "text": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := mergeEnv([]string{"PATH=/nonexistent"}, []string{"PATH=" + dir})
	if got, err := lookPath("program", env); err != nil || got != filepath.Join(dir, "program") {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := lookPath("text", env); err == nil {
		t.Errorf("found %q", got)
	}
	if got, err := lookPath("./program", env); err != nil || got != "./program" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(strings.Repeat("early\n", 100000)+"late\nlast\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := tail(path, 2); got != "late\nlast" {
		t.Errorf("got %q", got)
	}
	if got := tail(path+"x", 2); !strings.Contains(got, "no such file") {
		t.Errorf("got %q", got)
	}
}
