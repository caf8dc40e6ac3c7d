package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// daemonSpec has everything that is needed to start a daemon, also repeatedly.
type daemonSpec struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	// Log is the file for standard output and error; Logs are open from descriptor 3 on.
	Log  string   `json:"log"`
	Logs []string `json:"logs,omitempty"`
	// Isolated starts the process in PID and mount namespaces of its own.
	Isolated bool `json:"isolated,omitempty"`
	// Remove are files to remove before a start.
	Remove []string `json:"remove,omitempty"`
}

// daemonRecord is the lab's record of a daemon on disk.
type daemonRecord struct {
	Spec    daemonSpec `json:"spec"`
	Process process    `json:"process"`
}

// Daemon is one long-running process of the lab: a Ceph daemon, a server of the control plane,
// or a node with all its programs.
type Daemon struct {
	lab    *Lab
	record daemonRecord
	file   string
}

// Daemon returns a daemon by its name, such as "osd.0", "kube-apiserver" or "node-0". Any
// process may have started it.
func (l *Lab) Daemon(name string) (*Daemon, error) {
	d := &Daemon{lab: l, file: l.runFile("daemons", name+".json")}
	data, err := os.ReadFile(d.file)
	if errors.Is(err, fs.ErrNotExist) {
		names, _ := l.Daemons()
		return nil, fmt.Errorf("lab %q has no daemon %q; it has: %s", l.name, name, strings.Join(names, " "))
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &d.record); err != nil {
		return nil, fmt.Errorf("read %s: %w", d.file, err)
	}
	return d, nil
}

// Daemons returns the names of the daemons that were started.
func (l *Lab) Daemons() ([]string, error) {
	entries, err := os.ReadDir(l.runFile("daemons"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if name, found := strings.CutSuffix(entry.Name(), ".json"); found {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// startDaemon records a new daemon and starts it.
func (l *Lab) startDaemon(ctx context.Context, spec daemonSpec) (*Daemon, error) {
	if spec.Log == "" {
		spec.Log = l.logFile(spec.Name)
	}
	d := &Daemon{lab: l, record: daemonRecord{Spec: spec}, file: l.runFile("daemons", spec.Name+".json")}
	return d, d.Start(ctx)
}

// Name returns the daemon's name.
func (d *Daemon) Name() string { return d.record.Spec.Name }

// LogFile returns the path of the daemon's output.
func (d *Daemon) LogFile() string { return d.record.Spec.Log }

// PID returns the process ID of the daemon's last start.
func (d *Daemon) PID() int { return d.record.Process.PID }

// Running reports whether the process exists, paused or not.
func (d *Daemon) Running() bool { return hostProc.running(d.record.Process) }

// Start starts the daemon with its original arguments, unless it runs. It does not wait until
// the daemon is ready.
func (d *Daemon) Start(ctx context.Context) error {
	if d.Running() {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, path := range d.record.Spec.Remove {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	cmd := exec.Command(d.record.Spec.Argv[0], d.record.Spec.Argv[1:]...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}, d.record.Spec.Env...)
	cmd.Dir = "/"
	// The session is new so that signals from the terminal do not reach the daemon, and so that
	// its helpers are in one process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if d.record.Spec.Isolated {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
		cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	}
	files, err := openLogs(append([]string{d.record.Spec.Log}, d.record.Spec.Logs...))
	if err != nil {
		return err
	}
	defer closeAll(files)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = files[0], files[0], files[1:]
	if err := d.lab.StartInside(cmd); err != nil {
		return fmt.Errorf("start %s: %w", d.Name(), err)
	}
	// The status is read before Wait: until then the PID cannot be reused.
	status, err := hostProc.status(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }()
	if err != nil {
		return fmt.Errorf("start %s: %w", d.Name(), err)
	}
	d.record.Process = status.process
	data, err := json.MarshalIndent(d.record, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(d.file, data, 0o600)
}

// Pause stops the process with SIGSTOP. Its sockets stay open, but it does not answer.
func (d *Daemon) Pause() error { return d.signal(unix.SIGSTOP) }

// Resume continues a paused process.
func (d *Daemon) Resume() error { return d.signal(unix.SIGCONT) }

// Kill kills the process and its helpers and waits for their end.
func (d *Daemon) Kill() error {
	if !d.Running() {
		return fmt.Errorf("%s is not running", d.Name())
	}
	if err := killProcess(d.record.Process); err != nil {
		return fmt.Errorf("kill %s: %w", d.Name(), err)
	}
	return d.killGroup()
}

// Terminate sends SIGTERM to the process and waits for its end. When ctx ends first, the
// process is killed.
func (d *Daemon) Terminate(ctx context.Context) error {
	if err := d.signal(unix.SIGTERM); err != nil {
		return err
	}
	for d.Running() {
		select {
		case <-ctx.Done():
			if err := d.Kill(); err != nil {
				return err
			}
			return fmt.Errorf("%s did not end after SIGTERM and was killed: %w", d.Name(), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return d.killGroup()
}

func (d *Daemon) signal(signal syscall.Signal) error {
	if !d.Running() {
		return fmt.Errorf("%s is not running", d.Name())
	}
	return send(d.record.Process, signal)
}

// killGroup kills the remaining processes of the daemon's group and waits for their end.
func (d *Daemon) killGroup() error {
	gone := func() (bool, error) {
		left, err := hostProc.inGroup(d.record.Process.PID)
		for _, proc := range left {
			_ = send(proc, unix.SIGKILL)
		}
		return len(left) == 0, err
	}
	if err := poll(killTimeout, gone); err != nil {
		return fmt.Errorf("wait for the end of %s: %w", d.Name(), err)
	}
	return nil
}

// withLog adds the end of the daemon's log to an error, and whether the daemon runs.
func (d *Daemon) withLog(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	state := "is running"
	if !d.Running() {
		state = "has ended"
	}
	return fmt.Errorf("%w\n%s %s; the end of %s:\n%s", err, d.Name(), state, d.LogFile(), prepare.Tail(d.LogFile(), 15))
}

// awaitReady calls check until it succeeds. It returns the last error when the daemon has
// ended, or after the timeout.
func (d *Daemon) awaitReady(ctx context.Context, timeout time.Duration, check func(context.Context) error) error {
	deadline := time.Now().Add(timeout)
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !d.Running() || time.Now().After(deadline) {
			return d.withLog(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func openLogs(paths []string) ([]*os.File, error) {
	var files []*os.File
	for _, path := range paths {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		_ = file.Close()
	}
}
