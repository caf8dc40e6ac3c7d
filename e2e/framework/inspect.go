package framework

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// inspect saves what is visible of the process from outside, beside its log. The search for
// keys at the end of the run reads it.
func (p *Process) inspect(t *testing.T) {
	t.Helper()
	var text strings.Builder
	for _, name := range []string{"cmdline", "environ", "comm", "limits", "maps", "status"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID(), name))
		if err != nil && p.Running() {
			t.Error(err)
		}
		fmt.Fprintf(&text, "--- %s\n%s\n", name, data)
		// The file of a process that has just ended is empty.
		if name == "maps" && len(data) > 0 {
			checkLibrary(t, string(data))
		}
	}
	// The log is open twice, as standard output and standard error.
	if files := p.writtenFiles(t); p.Running() && !slices.Equal(files, []string{p.logFile, p.logFile}) {
		t.Errorf("the provisioner has files open for writing: %q", files)
	}
	p.save(t, ".proc", text.String())
	// The process may have just started, or be stopped, so the request may fail. The test's own
	// context has ended if this runs at the end of the test.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, metrics, err := p.TryGet(ctx, "/metrics"); err == nil {
		p.save(t, ".metrics", metrics)
	}
}

// checkLibrary checks that the library is that of the Ceph version WANT_LIBRBD, if that is set. So
// a run for one version cannot pass with another.
func checkLibrary(t *testing.T, maps string) {
	t.Helper()
	library := fmt.Sprintf("/librbd.so.1.%s.", os.Getenv("WANT_LIBRBD"))
	if os.Getenv("WANT_LIBRBD") != "" && !strings.Contains(maps, library) {
		t.Errorf("the provisioner does not use %s:\n%s", library, maps)
	}
}

func (p *Process) save(t *testing.T, extension, text string) {
	t.Helper()
	if err := os.WriteFile(strings.TrimSuffix(p.logFile, ".log")+extension, []byte(text), 0o600); err != nil {
		t.Error(err)
	}
}

// writtenFiles returns the regular files that the process has open for writing.
func (p *Process) writtenFiles(t *testing.T) []string {
	t.Helper()
	descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID()))
	if err != nil {
		t.Error(err)
	}
	var files []string
	for _, descriptor := range descriptors {
		info, err := os.Stat(descriptor)
		if err != nil || !info.Mode().IsRegular() {
			continue // closed meanwhile, or a socket, pipe or device
		}
		flags, err := os.ReadFile(strings.Replace(descriptor, "/fd/", "/fdinfo/", 1))
		if err != nil || readOnly.Match(flags) {
			continue
		}
		// A file outside any file system, like anon_inode:[eventpoll], has no path.
		if file, err := os.Readlink(descriptor); err == nil && strings.HasPrefix(file, "/") {
			files = append(files, file)
		}
	}
	return files
}

// readOnly matches the octal flags of a file that is open for reading only: O_RDONLY is 0.
var readOnly = regexp.MustCompile(`(?m)^flags:\s+[0-7]*[04]$`)

// wantNoFiles requires that the process has left no files, especially no core file.
func (p *Process) wantNoFiles(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(p.folder)
	if err != nil {
		t.Error(err)
	}
	for _, entry := range entries {
		t.Errorf("the provisioner left file %s", entry.Name())
	}
	if err := os.RemoveAll(p.folder); err != nil {
		t.Error(err)
	}
}
