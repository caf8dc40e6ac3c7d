package lab

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPolicyIsRestored(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{
		"none":                  "",
		"of the machine":        "#!/bin/sh\nexit 0\n",
		"of an interrupted lab": policyText,
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
			t.Errorf("%s: policy does not exist", name)
		}
		restore()
		after, _ := os.ReadFile(policy)
		if keep := before != policyText; keep && string(after) != before || !keep && len(after) > 0 {
			t.Errorf("%s: %q afterwards", name, after)
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
