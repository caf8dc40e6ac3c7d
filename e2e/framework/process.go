package framework

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// OperationTimeout is the value of --timeout. A claim gets an event within this time.
const OperationTimeout = 10 * time.Second

// Process is one running provisioner.
type Process struct {
	cmd      *exec.Cmd
	logFile  string
	endpoint string
	folder   string        // working directory and TMPDIR
	exited   chan struct{} // closed at the end of the process
	// MayBeForbidden is set if the API server was restarted. Its answers may be "forbidden"
	// then.
	MayBeForbidden bool
}

var processes atomic.Int32

// NewForProcess creates an environment with a unique provisioner name.
func NewForProcess(t *testing.T) *Env {
	t.Helper()
	binary(t)
	e := New(t, "")
	e.Provisioner = "rbd-provisioner.e2e/" + e.Namespace
	return e
}

// Start starts a provisioner for the test. At the end of the test it is terminated and must
// exit with code 0. The given flags override the default ones.
func Start(t *testing.T, e *Env, flags ...string) *Process {
	t.Helper()
	folder, err := os.MkdirTemp("", "rbd-provisioner-e2e-") //nolint:usetesting // it would be removed before the end of the process
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{endpoint: freeEndpoint(t), logFile: newLogFile(t, e), folder: folder, exited: make(chan struct{})}
	args := []string{
		"--kubeconfig=" + serviceAccountKubeconfig(t), "--provisioner-name=" + e.Provisioner,
		"--leader-election-namespace=" + e.allowLease(t),
		"--timeout=" + OperationTimeout.String(), "--retry-interval-start=250ms", "--retry-interval-max=2s",
		"--http-endpoint=" + p.endpoint, "-v=4",
	}
	log, err := os.Create(p.logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	p.cmd = exec.Command(binary(t), append(args, flags...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// The environment has no settings of a cluster: the process must use its flags.
	p.cmd.Env = []string{"PATH=/nonexistent", "HOME=/nonexistent", "TMPDIR=" + p.folder}
	p.cmd.Dir = p.folder
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state is read later
		close(p.exited)
	}()
	e.AddLog(p.logFile, func(context.Context) string { return p.Log() })
	e.Cleanup(p.end)
	return p
}

// PID returns the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// binary returns the path of the program under test.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("RBD_PROVISIONER")
	if path == "" {
		t.Fatal("RBD_PROVISIONER is not set; set it to the binary of `go build ./cmd/rbd-provisioner`")
	}
	return path
}

// newLogFile returns a path beside the lab's other logs, where it is kept after the test.
func newLogFile(t *testing.T, e *Env) string {
	folder := LabLogs()
	if folder == "" {
		folder = t.TempDir()
	}
	return filepath.Join(folder, fmt.Sprintf("provisioner-%s-%d.log", e.Namespace, processes.Add(1)))
}

// freeEndpoint returns an address that was unused a moment ago. The loopback address is random:
// at the same address, another test could take the port before the process listens.
func freeEndpoint(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", randomLoopback())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// end stops the process at the end of the test and checks its exit code, log and files.
func (p *Process) end(t *testing.T) {
	if p.Running() {
		p.Resume(t)
		if code := p.Terminate(t); code != 0 {
			t.Errorf("the provisioner ended with exit code %d after SIGTERM", code)
		}
	}
	// A policy may also forbid a request, but not because of its user.
	const forbidden = "is forbidden: User"
	for _, bad := range []string{forbidden, "panic", "DATA RACE"} {
		if strings.Contains(p.Log(), bad) && (bad != forbidden || !p.MayBeForbidden) {
			t.Errorf("the provisioner's log %s has %q", p.logFile, bad)
		}
	}
	p.wantNoFiles(t)
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Log returns the log so far.
func (p *Process) Log() string {
	data, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Kill kills the process like a crash of its node.
func (p *Process) Kill(t *testing.T) {
	t.Helper()
	p.inspect(t)
	p.signal(t, syscall.SIGKILL)
	<-p.exited
}

// Wait waits for the end of the process.
func (p *Process) Wait() { <-p.exited }

// Abort ends the process like a failed assertion inside Ceph's libraries, and returns its exit
// code.
func (p *Process) Abort(t *testing.T) int {
	t.Helper()
	p.inspect(t)
	p.signal(t, syscall.SIGABRT)
	return p.AwaitExit(t)
}

// DumpedCore waits for the end of the process and reports whether it wrote a core file.
func (p *Process) DumpedCore() bool {
	<-p.exited
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus).CoreDump()
}

// Terminate sends SIGTERM and returns the exit code.
func (p *Process) Terminate(t *testing.T) int {
	t.Helper()
	p.inspect(t)
	p.signal(t, syscall.SIGTERM)
	return p.AwaitExit(t)
}

// Pause stops all threads of the process, like a machine that is out of memory.
func (p *Process) Pause(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
}

// Resume continues a paused process.
func (p *Process) Resume(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGCONT)
}

func (p *Process) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("%s: %v", signal, err)
	}
}

// AwaitExit waits for the end of the process and returns its exit code, -1 for a killed
// process.
func (p *Process) AwaitExit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(Timeout):
		_ = p.cmd.Process.Kill()
		t.Fatalf("the provisioner did not end within %s", Timeout)
	}
	return p.cmd.ProcessState.ExitCode()
}

// AwaitLog waits until the log contains a text.
func (p *Process) AwaitLog(t *testing.T, e *Env, text string) {
	t.Helper()
	e.Await(t, fmt.Sprintf("%q in the provisioner's log", text), Timeout, func(context.Context) error {
		if strings.Contains(p.Log(), text) {
			return nil
		}
		if !p.Running() {
			return fmt.Errorf("the process has ended with exit code %d", p.cmd.ProcessState.ExitCode())
		}
		return errors.New("not found")
	})
}

// Get sends a GET request to the process's HTTP endpoint.
func (p *Process) Get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	status, body, err := p.TryGet(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

// TryGet is Get with an error.
func (p *Process) TryGet(ctx context.Context, path string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.endpoint+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, string(data), err
}
