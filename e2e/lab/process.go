package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// procfs reads processes from a mounted proc file system.
type procfs string

const hostProc procfs = "/proc"

// process identifies a process for as long as the machine runs. Its number may be reused, but
// not with the same start time.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

type processStatus struct {
	process
	parent  int
	group   int
	stopped bool
	zombie  bool
}

// status reads one process. The error is fs.ErrNotExist if the process does not exist.
func (p procfs) status(pid int) (processStatus, error) {
	data, err := os.ReadFile(filepath.Join(string(p), strconv.Itoa(pid), "stat"))
	if errors.Is(err, syscall.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return processStatus{}, err
	}
	// The second field is the command in parentheses and may contain anything.
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return processStatus{}, fmt.Errorf("process %d: malformed stat file", pid)
	}
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) < 20 {
		return processStatus{}, fmt.Errorf("process %d: stat file has only %d fields", pid, len(fields))
	}
	var threads int
	status := processStatus{process: process{PID: pid}, stopped: fields[0] == "T"}
	for _, number := range []struct {
		field int
		into  *int
	}{{1, &status.parent}, {2, &status.group}, {17, &threads}} {
		if *number.into, err = strconv.Atoi(fields[number.field]); err != nil {
			return processStatus{}, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	// While other threads of a killed process are still exiting, the first thread is already a
	// zombie. Files and locks are still held then.
	status.zombie = (fields[0] == "Z" || fields[0] == "X") && threads <= 1
	if status.Start, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return processStatus{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return status, nil
}

// running reports whether this process exists and has not ended.
func (p procfs) running(proc process) bool {
	status, err := p.status(proc.PID)
	return err == nil && status.Start == proc.Start && !status.zombie
}

// active reports whether this process is running and not stopped by a signal.
func (p procfs) active(proc process) bool {
	status, err := p.status(proc.PID)
	return err == nil && status.Start == proc.Start && !status.zombie && !status.stopped
}

// all lists the processes that can be read.
func (p procfs) all() ([]processStatus, error) {
	entries, err := os.ReadDir(string(p))
	if err != nil {
		return nil, err
	}
	var all []processStatus
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if status, err := p.status(pid); err == nil {
			all = append(all, status)
		}
	}
	return all, nil
}

// inNamespace lists the processes whose network namespace has the inode, except the process
// self and its ancestors.
func (p procfs) inNamespace(inode uint64, self int) ([]process, error) {
	all, err := p.all()
	if err != nil {
		return nil, err
	}
	kin := p.lineage(self)
	want := fmt.Sprintf("net:[%d]", inode)
	var found []process
	for _, status := range all {
		link, err := os.Readlink(filepath.Join(string(p), strconv.Itoa(status.PID), "ns", "net"))
		if err == nil && link == want && !kin[status.PID] {
			found = append(found, status.process)
		}
	}
	return found, nil
}

// inGroup lists the members of a process group that have not ended.
func (p procfs) inGroup(group int) ([]process, error) {
	all, err := p.all()
	if err != nil {
		return nil, err
	}
	var found []process
	for _, status := range all {
		if status.group == group && !status.zombie {
			found = append(found, status.process)
		}
	}
	return found, nil
}

// traced lists the processes that the process traces.
func (p procfs) traced(tracer int) ([]process, error) {
	all, err := p.all()
	if err != nil {
		return nil, err
	}
	var found []process
	for _, status := range all {
		if !status.zombie && p.tracer(status.PID) == tracer {
			found = append(found, status.process)
		}
	}
	return found, nil
}

// tracer returns the process that traces pid, or 0.
func (p procfs) tracer(pid int) int {
	data, err := os.ReadFile(filepath.Join(string(p), strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), "\nTracerPid:")
	line, _, _ := strings.Cut(rest, "\n")
	tracer, _ := strconv.Atoi(strings.TrimSpace(line))
	return tracer
}

// lineage returns a process and all its ancestors.
func (p procfs) lineage(pid int) map[int]bool {
	kin := map[int]bool{}
	for pid > 0 && !kin[pid] {
		kin[pid] = true
		status, err := p.status(pid)
		if err != nil {
			break
		}
		pid = status.parent
	}
	return kin
}
