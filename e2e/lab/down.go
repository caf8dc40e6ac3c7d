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
	// termTimeout is how long processes have between SIGTERM and SIGKILL. Nothing
	// of a lab that goes down is worth saving.
	termTimeout = 500 * time.Millisecond
	// killTimeout is how long they have to end after SIGKILL.
	killTimeout = 10 * time.Second
)

// Down ends all processes of the lab and removes all of it but the logs. It
// works on whatever an interrupted start or an interrupted Down has left, also
// when that is nothing.
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
	// Emptied before it is unmounted: the nodes of other labs may have it mounted
	// in their namespaces, and would keep its memory.
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

// removeAllIn removes what is in a directory, but for one name.
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

// killAll ends the processes of the lab: those in its network namespace, and the
// recorded ones in case somebody has removed the namespace.
func (l *Lab) killAll() error {
	start := time.Now()
	asked := map[process]bool{}
	for {
		left, err := l.processes()
		if err != nil {
			return err
		}
		// Those on their way out are in no namespace any more.
		for proc := range asked {
			if hostProc.running(proc) && !slices.Contains(left, proc) {
				left = append(left, proc)
			}
		}
		if len(left) == 0 {
			return nil
		}
		if time.Since(start) > termTimeout+killTimeout {
			return fmt.Errorf("%d processes of lab %s do not end, process %d for one", len(left), l.name, left[0].PID)
		}
		if err := l.end(left, asked, time.Since(start) > termTimeout); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// end makes processes end: tracers and what they trace at once, the others when
// they were asked before and did not, if force is set.
func (l *Lab) end(processes []process, asked map[process]bool, force bool) error {
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
		case !asked[proc]:
			err = send(proc, unix.SIGTERM)
		}
		if err != nil {
			return err
		}
		asked[proc] = true
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
		// A record that cannot be read was being written: its process is new, and
		// the namespace is still there to find it by.
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

// unmountBelow unmounts dir and all that is mounted below it.
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
