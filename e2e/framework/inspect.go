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

// inspect writes beside the log what can be seen of the process from outside, as long
// as it is there: for the search for keys at the end of the run.
func (p *Process) inspect(t *testing.T) {
	t.Helper()
	var text strings.Builder
	for _, name := range []string{"cmdline", "environ", "comm", "limits", "maps", "status"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID(), name))
		if err != nil && p.Running() {
			t.Error(err)
		}
		fmt.Fprintf(&text, "--- %s\n%s\n", name, data)
	}
	// Its log, as its standard output and error.
	if files := p.writtenFiles(t); p.Running() && !slices.Equal(files, []string{p.logFile, p.logFile}) {
		t.Errorf("the provisioner writes to files %q", files)
	}
	p.save(t, ".proc", text.String())
	// It may be one that was started a moment ago, or stopped. The test's own context is
	// done when this is called at its end.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, metrics, err := p.TryGet(ctx, "/metrics"); err == nil {
		p.save(t, ".metrics", metrics)
	}
}

func (p *Process) save(t *testing.T, extension, text string) {
	t.Helper()
	if err := os.WriteFile(strings.TrimSuffix(p.logFile, ".log")+extension, []byte(text), 0o600); err != nil {
		t.Error(err)
	}
}

// writtenFiles are the regular files that the process has open for writing.
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
			continue // closed meanwhile, or a socket, a pipe, a device
		}
		flags, err := os.ReadFile(strings.Replace(descriptor, "/fd/", "/fdinfo/", 1))
		if err != nil || readOnly.Match(flags) {
			continue
		}
		// What is none in a file system has no path: anon_inode:[eventpoll].
		if file, err := os.Readlink(descriptor); err == nil && strings.HasPrefix(file, "/") {
			files = append(files, file)
		}
	}
	return files
}

// readOnly are the flags, in octal, of a file that is open for reading: O_RDONLY is 0.
var readOnly = regexp.MustCompile(`(?m)^flags:\s+[0-7]*[04]$`)

// wantNoFiles wants that the process has left nothing behind, a core file least of all.
func (p *Process) wantNoFiles(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(p.folder)
	if err != nil {
		t.Error(err)
	}
	for _, entry := range entries {
		t.Errorf("the provisioner has left file %s", entry.Name())
	}
	if err := os.RemoveAll(p.folder); err != nil {
		t.Error(err)
	}
}
