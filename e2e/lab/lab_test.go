package lab

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// newTestLab returns a lab that was not started, with all its directories below a temporary
// one.
func newTestLab(t *testing.T) *Lab {
	t.Helper()
	dir := t.TempDir()
	l, err := New("test", Options{
		RunDir:   filepath.Join(dir, "run"),
		StateDir: filepath.Join(dir, "state"),
		CacheDir: filepath.Join(dir, "cache"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNewTouchesNothing(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	for _, dir := range []string{l.opts.RunDir, l.opts.StateDir, l.opts.CacheDir} {
		if exists(dir) {
			t.Errorf("%s was created", dir)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"a": true, "ci-7": true, strings.Repeat("x", 20): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "../a": false, strings.Repeat("x", 21): false,
	} {
		if _, err := New(name, Options{}); (err == nil) != want {
			t.Errorf("New(%q): %v, want a valid name: %t", name, err, want)
		}
	}
}

func TestOpenTakesTheDirectoriesFromTheLab(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	if _, err := Open("test", l.opts); !errors.Is(err, ErrNotFound) {
		t.Fatalf("open a lab that does not exist: %v, want ErrNotFound", err)
	}
	l.settings.BinDir = "/some/bin"
	if err := l.saveSettings(); err != nil {
		t.Fatal(err)
	}
	opened, err := Open("test", Options{RunDir: l.opts.RunDir})
	if err != nil {
		t.Fatal(err)
	}
	if opened.LogDir() != l.LogDir() {
		t.Errorf("logs in %s, want %s", opened.LogDir(), l.LogDir())
	}
	if !slices.ContainsFunc(opened.Env(), func(entry string) bool { return strings.HasPrefix(entry, "PATH=/some/bin:") }) {
		t.Errorf("environment without the programs: %q", opened.Env())
	}
}

func TestListLeavesOutLocks(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	if err := l.saveSettings(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.opts.RunDir, "other.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	names, err := List(l.opts)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(names, "test") || slices.Contains(names, "other") || slices.Contains(names, "other.lock") {
		t.Errorf("labs: %q", names)
	}
}

func TestUnknownDaemonIsToldWhatThereIs(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	for _, name := range []string{"osd.0", "etcd"} {
		if err := writeFile(l.runFile("daemons", name+".json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := l.Daemon("mon.b")
	if err == nil || !strings.Contains(err.Error(), `no daemon "mon.b"; it has: etcd osd.0`) {
		t.Errorf("got %v", err)
	}
}

func TestUpOptions(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		opts UpOptions
		want []string
	}{
		"nodes and images":   {UpOptions{Nodes: 2, Images: []string{image}}, nil},
		"nodes without API":  {UpOptions{Nodes: 1, NoKubernetes: true}, []string{"nodes need Kubernetes"}},
		"image is missing":   {UpOptions{Images: []string{image + ".gz"}}, []string{"no such file"}},
		"image is a folder":  {UpOptions{Images: []string{filepath.Dir(image)}}, []string{"not a file"}},
		"Ceph 18":            {UpOptions{CephVersion: 18}, nil},
		"an unknown Ceph":    {UpOptions{CephVersion: 17}, []string{"invalid version of Ceph 17: want 16 or 18"}},
		"everything at once": {UpOptions{Nodes: 9, Ceph: CephOptions{Name: "b"}}, []string{"has no name", "want 0 to 8"}},
	} {
		err := test.opts.validate()
		if (err == nil) != (test.want == nil) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
		for _, want := range test.want {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", name, err, want)
			}
		}
	}
}
