package lab

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// killProcess kills a process and, before it, those that it traces.
//
// The order matters. The programs inside a User-Mode Linux are processes of the
// host whose system calls their tracer, the User-Mode Linux, intercepts. When it
// dies first they are let loose: for a moment they go on as programs of the host,
// as root, and what was meant for the node's files happens to the host's.
func killProcess(proc process) error {
	if err := send(proc, unix.SIGSTOP); err != nil {
		return err
	}
	// It may take no part in what comes, and start nothing new. On a busy machine
	// it can take seconds to stop; if it does not, the kill has to do without.
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

var errTimeout = errors.New("it takes too long")

// poll waits until done says so.
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
