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

// daemonSpec is all that it takes to start a daemon, again and again.
type daemonSpec struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	// Log receives standard output and error; Logs are open from descriptor 3 on.
	Log  string   `json:"log"`
	Logs []string `json:"logs,omitempty"`
	// Isolated puts the process into a PID and a mount namespace of its own.
	Isolated bool `json:"isolated,omitempty"`
	// Remove are files to remove before a start.
	Remove []string `json:"remove,omitempty"`
}

// daemonRecord is what the lab knows about a daemon, on disk.
type daemonRecord struct {
	Spec    daemonSpec `json:"spec"`
	Process process    `json:"process"`
}

// Daemon is one long-running process of the lab: a Ceph daemon, a server of the
// control plane, or a node with everything in it.
type Daemon struct {
	lab    *Lab
	record daemonRecord
	file   string
}

// Daemon finds a daemon by its name, such as "osd.0", "kube-apiserver" or
// "node-0". It must have been started before, by whichever process.
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

// Daemons names the daemons that were started so far.
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

// startDaemon describes a daemon for the first time and starts it.
func (l *Lab) startDaemon(ctx context.Context, spec daemonSpec) (*Daemon, error) {
	if spec.Log == "" {
		spec.Log = l.logFile(spec.Name)
	}
	d := &Daemon{lab: l, record: daemonRecord{Spec: spec}, file: l.runFile("daemons", spec.Name+".json")}
	return d, d.Start(ctx)
}

// Name is the daemon's name.
func (d *Daemon) Name() string { return d.record.Spec.Name }

// LogFile is where the daemon's output goes.
func (d *Daemon) LogFile() string { return d.record.Spec.Log }

// PID is the process number of the daemon's last start.
func (d *Daemon) PID() int { return d.record.Process.PID }

// Running says whether the process is there, paused or not.
func (d *Daemon) Running() bool { return hostProc.running(d.record.Process) }

// Start starts the daemon as it was started first. It does not wait for it to
// be of use, and does nothing when it runs.
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
	// A session of its own: signals for the terminal are not for the daemon, and
	// its helpers can be found by their group.
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
	// Read before anybody waits for it: until then the number cannot be reused.
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

// Pause stops the process where it is; it keeps its sockets and answers nobody.
func (d *Daemon) Pause() error { return d.signal(unix.SIGSTOP) }

// Resume lets a paused process go on.
func (d *Daemon) Resume() error { return d.signal(unix.SIGCONT) }

// Kill ends the process and its helpers at once and waits until they are gone.
func (d *Daemon) Kill() error {
	if !d.Running() {
		return fmt.Errorf("%s is not running", d.Name())
	}
	if err := killProcess(d.record.Process); err != nil {
		return fmt.Errorf("kill %s: %w", d.Name(), err)
	}
	return d.sweep()
}

// Terminate asks the process to end and waits for it. When ctx ends first, it
// is killed.
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
			return fmt.Errorf("%s did not end by itself: %w", d.Name(), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return d.sweep()
}

func (d *Daemon) signal(signal syscall.Signal) error {
	if !d.Running() {
		return fmt.Errorf("%s is not running", d.Name())
	}
	return send(d.record.Process, signal)
}

// sweep kills what is left of the daemon's process group and waits for its end.
func (d *Daemon) sweep() error {
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

// explain adds to an error what the daemon said last, and whether it still runs.
func (d *Daemon) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	state := "is running"
	if !d.Running() {
		state = "has ended"
	}
	return fmt.Errorf("%w\n%s %s; the end of %s:\n%s", err, d.Name(), state, d.LogFile(), prepare.Tail(d.LogFile(), 15))
}

// until calls check again and again until it succeeds. It gives up when the
// daemon is no longer there, or after the timeout, with the last error.
func (d *Daemon) until(ctx context.Context, timeout time.Duration, check func(context.Context) error) error {
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
			return d.explain(err)
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
