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

// OperationTimeout is the --timeout that the tests give: by then a claim has been
// told what is wrong.
const OperationTimeout = 10 * time.Second

// Process is one running provisioner.
type Process struct {
	cmd      *exec.Cmd
	logFile  string
	endpoint string
	folder   string        // its working directory, and where it would put temporary files
	exited   chan struct{} // closed when it has
	// MayBeForbidden is set where the API server was not itself for a while.
	MayBeForbidden bool
}

var processes atomic.Int32

// NewForProcess is a place for a test whose provisioner has a name that no other has.
func NewForProcess(t *testing.T) *Env {
	t.Helper()
	binary(t)
	e := New(t, "")
	e.Provisioner = "rbd-provisioner.e2e/" + e.Namespace
	return e
}

// Start starts a provisioner for the test. It ends with the test, and has to end
// well then. Flags given overrule those that all have.
func Start(t *testing.T, e *Env, flags ...string) *Process {
	t.Helper()
	folder, err := os.MkdirTemp("", "rbd-provisioner-e2e-") //nolint:usetesting // which would be gone before the process is
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
	// Nothing that could tell it of a cluster by another way than its flags.
	p.cmd.Env = []string{"PATH=/nonexistent", "HOME=/nonexistent", "TMPDIR=" + p.folder}
	p.cmd.Dir = p.folder
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state that it leaves is looked at
		close(p.exited)
	}()
	e.AddLog(p.logFile, func(context.Context) string { return p.Log() })
	e.Cleanup(p.end)
	return p
}

// PID is the process number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// binary is the path of the program under test.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("RBD_PROVISIONER")
	if path == "" {
		t.Fatal("RBD_PROVISIONER does not name the provisioner's binary; `go build ./cmd/rbd-provisioner` makes one")
	}
	return path
}

// newLogFile is beside the lab's other logs, where it outlives the test.
func newLogFile(t *testing.T, e *Env) string {
	folder := LabLogs()
	if folder == "" {
		folder = t.TempDir()
	}
	return filepath.Join(folder, fmt.Sprintf("provisioner-%s-%d.log", e.Namespace, processes.Add(1)))
}

// freeEndpoint is an address at which nobody listened a moment ago.
func freeEndpoint(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// end is for the end of the test.
func (p *Process) end(t *testing.T) {
	if p.Running() {
		p.Resume(t)
		if code := p.Terminate(t); code != 0 {
			t.Errorf("the provisioner ended with exit code %d after SIGTERM", code)
		}
	}
	// A policy may forbid something, too, but then not because of who asks.
	const forbidden = "is forbidden: User"
	for _, bad := range []string{forbidden, "panic", "DATA RACE"} {
		if strings.Contains(p.Log(), bad) && (bad != forbidden || !p.MayBeForbidden) {
			t.Errorf("the provisioner's log %s has %q", p.logFile, bad)
		}
	}
	p.wantNoFiles(t)
}

// Running tells whether it has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Log is all that it has written so far.
func (p *Process) Log() string {
	data, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Kill ends the process as a crash of its node would.
func (p *Process) Kill(t *testing.T) {
	t.Helper()
	p.inspect(t)
	p.signal(t, syscall.SIGKILL)
	<-p.exited
}

// Wait returns when it has ended.
func (p *Process) Wait() { <-p.exited }

// Abort ends the process as a failed assertion inside Ceph's libraries does, and returns
// its exit code.
func (p *Process) Abort(t *testing.T) int {
	t.Helper()
	p.inspect(t)
	p.signal(t, syscall.SIGABRT)
	return p.AwaitExit(t)
}

// DumpedCore tells whether it left a core file when it ended.
func (p *Process) DumpedCore() bool {
	<-p.exited
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus).CoreDump()
}

// Terminate asks the process to end and returns its exit code.
func (p *Process) Terminate(t *testing.T) int {
	t.Helper()
	p.inspect(t)
	p.signal(t, syscall.SIGTERM)
	return p.AwaitExit(t)
}

// Pause stops all its threads, as a machine that is out of memory may.
func (p *Process) Pause(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
}

// Resume lets them go on.
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

// AwaitExit waits for its end and returns the exit code, -1 for a process that was killed.
func (p *Process) AwaitExit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(Timeout):
		_ = p.cmd.Process.Kill()
		t.Fatalf("the provisioner was still running %s after it was to end", Timeout)
	}
	return p.cmd.ProcessState.ExitCode()
}

// AwaitLog waits until the log has a text.
func (p *Process) AwaitLog(t *testing.T, e *Env, text string) {
	t.Helper()
	e.Await(t, fmt.Sprintf("%q in the provisioner's log", text), Timeout, func(context.Context) error {
		if strings.Contains(p.Log(), text) {
			return nil
		}
		if !p.Running() {
			return fmt.Errorf("it has ended with exit code %d", p.cmd.ProcessState.ExitCode())
		}
		return errors.New("it is not there")
	})
}

// Get asks for a path over HTTP.
func (p *Process) Get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	status, body, err := p.TryGet(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

// TryGet is Get for where a failure is not the end.
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
