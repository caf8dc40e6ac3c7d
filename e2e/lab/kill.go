package lab

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// killProcess kills the processes that a process traces, and then the process.
//
// The order matters. The programs inside a User-Mode Linux are processes of the host. Their
// tracer, the User-Mode Linux, intercepts their system calls. If it dies first, they briefly
// continue as root programs of the host. What they do to the node's files then happens to the
// host's files.
func killProcess(proc process) error {
	if err := send(proc, unix.SIGSTOP); err != nil {
		return err
	}
	// A stopped process cannot start new ones. On a busy machine the stop can take seconds. If
	// it takes longer, the kill continues without it.
	_ = poll(5*time.Second, func() (bool, error) { return !hostProc.active(proc), nil })
	tracesNone := func() (bool, error) {
		traced, err := hostProc.traced(proc.PID)
		for _, each := range traced {
			_ = send(each, unix.SIGKILL)
		}
		return len(traced) == 0, err
	}
	if err := poll(5*time.Second, tracesNone); err != nil {
		return fmt.Errorf("kill what process %d traces: %w", proc.PID, err)
	}
	return send(proc, unix.SIGKILL)
}

// send sends a signal to a process unless it has ended.
func send(proc process, signal unix.Signal) error {
	if !hostProc.running(proc) {
		return nil
	}
	if err := unix.Kill(proc.PID, signal); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", signal, proc.PID, err)
	}
	return nil
}

var errTimeout = errors.New("timed out")

// poll waits until done returns true.
func poll(timeout time.Duration, done func() (bool, error)) error {
	for deadline := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errTimeout
		}
	}
}
