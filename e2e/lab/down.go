package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// termTimeout is the time between SIGTERM and SIGKILL. It is short because a stopped lab
	// has no data worth saving.
	termTimeout = 500 * time.Millisecond
	// killTimeout is the time that processes have to end after SIGKILL.
	killTimeout = 10 * time.Second
)

// Down stops all processes of the lab and removes all its files except the logs. It also works
// after an interrupted start or Down, and if the lab does not exist.
func (l *Lab) Down(ctx context.Context) error {
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return l.down()
}

func (l *Lab) down() error {
	if err := l.killAll(); err != nil {
		return err
	}
	// The directory is emptied before it is unmounted. Nodes of other labs may have mounted it
	// in their namespaces, and would keep its memory allocated.
	if err := removeAllIn(l.runFile(), ""); err != nil {
		return err
	}
	for _, dir := range []string{l.runFile(), l.stateFile()} {
		if err := unmountBelow(dir); err != nil {
			return err
		}
	}
	if err := l.net.remove(); err != nil {
		return err
	}
	if err := removeAllIn(l.stateFile(), filepath.Base(l.LogDir())); err != nil {
		return err
	}
	return os.RemoveAll(l.runFile())
}

// removeAllIn removes the content of a directory except one name.
func removeAllIn(dir, except string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == except {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// killAll ends the lab's processes: those in its network namespace, and those recorded, in case
// the namespace was removed.
func (l *Lab) killAll() error {
	start := time.Now()
	signaled := map[process]bool{}
	for {
		left, err := l.processes()
		if err != nil {
			return err
		}
		// Processes that are exiting are in no namespace any more.
		for proc := range signaled {
			if hostProc.running(proc) && !slices.Contains(left, proc) {
				left = append(left, proc)
			}
		}
		if len(left) == 0 {
			return nil
		}
		if time.Since(start) > termTimeout+killTimeout {
			return fmt.Errorf("%d processes of lab %s did not end after SIGKILL, for example process %d", len(left), l.name, left[0].PID)
		}
		if err := l.endProcesses(left, signaled, time.Since(start) > termTimeout); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// endProcesses ends processes. Tracers and the processes that they trace are killed at once. The others
// get SIGTERM, and SIGKILL if force is set.
func (l *Lab) endProcesses(processes []process, signaled map[process]bool, force bool) error {
	for _, proc := range processes {
		if tracer := hostProc.tracer(proc.PID); tracer != 0 {
			if status, err := hostProc.status(tracer); err == nil && slices.Contains(processes, status.process) {
				if err := killProcess(status.process); err != nil {
					return err
				}
			}
		}
	}
	for _, proc := range processes {
		var err error
		switch {
		case force:
			err = send(proc, unix.SIGKILL)
		case !signaled[proc]:
			err = send(proc, unix.SIGTERM)
		}
		if err != nil {
			return err
		}
		signaled[proc] = true
	}
	return nil
}

func (l *Lab) processes() ([]process, error) {
	var found []process
	inode, ok, err := l.net.inode()
	if err != nil {
		return nil, err
	}
	if ok {
		if found, err = hostProc.inNamespace(inode, os.Getpid()); err != nil {
			return nil, err
		}
	}
	names, err := l.Daemons()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		// An unreadable record is being written: its process is new and is still found by its
		// namespace.
		d, err := l.Daemon(name)
		if err != nil || !d.Running() {
			continue
		}
		group, err := hostProc.inGroup(d.PID())
		if err != nil {
			return nil, err
		}
		found = append(found, group...)
	}
	slices.SortFunc(found, func(a, b process) int { return a.PID - b.PID })
	return slices.Compact(found), nil
}

// unmountBelow unmounts dir and all mounts below it.
func unmountBelow(dir string) error {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	var points []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && (fields[4] == dir || strings.HasPrefix(fields[4], dir+"/")) {
			points = append(points, fields[4])
		}
	}
	slices.Reverse(points)
	for _, point := range points {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	return nil
}
