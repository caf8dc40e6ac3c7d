package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOnlyRootCephHasADirectory(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	for _, version := range []int{0, HostCeph} {
		if root, err := l.cephRoot(version); root != "" || err != nil {
			t.Errorf("directory of Ceph %d: %q, %v", version, root, err)
		}
	}
	if _, err := l.cephRoot(RootCeph); err == nil || !strings.Contains(err.Error(), "run `lab prepare --ceph 18`") {
		t.Errorf("directory that was not created: %v", err)
	}
	if _, err := l.cephRoot(17); err == nil {
		t.Error("version 17 is not an error")
	}
	path := l.cachePath("ceph", rootKey())
	if !entryName.MatchString(filepath.Base(path)) {
		t.Errorf("prune would not find %s", path)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if root, err := l.cephRoot(RootCeph); string(root) != path || err != nil {
		t.Errorf("directory %q, %v, want %s", root, err, path)
	}
}

func TestCommandsOfTheHostAreNotChanged(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff([]string{"ceph", "-s"}, cephRoot("").command("ceph", "-s")); diff != "" {
		t.Error(diff)
	}
}

func TestVersionOfTheDaemons(t *testing.T) {
	t.Parallel()
	const (
		old     = `"ceph version 16.2.15 (618f) pacific (stable)"`
		current = `"ceph version 18.2.7 (6b0e) reef (stable)"`
	)
	for name, test := range map[string]struct{ versions, want string }{
		"as requested":     {`{"mon":{` + current + `:1},"mgr":{},"osd":{` + current + `:1},"overall":{` + current + `:2}}`, "ceph version 18.2.7 (6b0e) reef (stable)"},
		"another version":  {`{"mon":{` + old + `:1},"osd":{` + old + `:1}}`, ""},
		"an older OSD":     {`{"mon":{` + current + `:1},"osd":{` + old + `:1}}`, ""},
		"a similar number": {`{"mon":{"ceph version 180.1":1},"osd":{"ceph version 180.1":1}}`, ""},
		"no OSD":           {`{"mon":{` + current + `:1},"osd":{}}`, ""},
		"not JSON":         {"x", ""},
	} {
		got, err := versionOf([]byte(test.versions), RootCeph)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v, want %q", name, got, err, test.want)
		}
	}
}
