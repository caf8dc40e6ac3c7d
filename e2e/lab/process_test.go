package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type fakeProcess struct {
	pid, parent, group int
	start              uint64
	threads            int
	state, command     string
	namespace          string
}

// fakeProc returns a proc file system with the processes.
func fakeProc(t *testing.T, processes ...fakeProcess) procfs {
	t.Helper()
	root := t.TempDir()
	for _, p := range processes {
		dir := filepath.Join(root, strconv.Itoa(p.pid))
		if err := os.MkdirAll(filepath.Join(dir, "ns"), 0o755); err != nil {
			t.Fatal(err)
		}
		stat := fmt.Sprintf("%d (%s) %s %d %d 1 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 %d 0 %d 1000 10", p.pid, p.command, p.state, p.parent, p.group, max(1, p.threads), p.start)
		if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o644); err != nil {
			t.Fatal(err)
		}
		// The link of an unreadable namespace, such as a zombie's, does not exist.
		if p.namespace != "" {
			if err := os.Symlink(p.namespace, filepath.Join(dir, "ns", "net")); err != nil {
				t.Fatal(err)
			}
		}
	}
	// an entry that is not a process
	if err := os.WriteFile(filepath.Join(root, "meminfo"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return procfs(root)
}

func TestStatusReadsPastAnyCommand(t *testing.T) {
	t.Parallel()
	proc := fakeProc(t, fakeProcess{pid: 7, parent: 3, group: 5, start: 99, state: "S", command: "a) R 1 (b"})
	got, err := proc.status(7)
	if err != nil {
		t.Fatal(err)
	}
	want := processStatus{process: process{PID: 7, Start: 99}, parent: 3, group: 5}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(processStatus{})); diff != "" {
		t.Error(diff)
	}
	if _, err := proc.status(8); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("status of no process: %v, want fs.ErrNotExist", err)
	}
}

func TestRunningKnowsAReusedNumberAndAZombie(t *testing.T) {
	t.Parallel()
	proc := fakeProc(t,
		fakeProcess{pid: 7, start: 99, state: "S"},
		fakeProcess{pid: 8, start: 100, state: "Z"},
		fakeProcess{pid: 9, start: 101, state: "T"},
		fakeProcess{pid: 11, start: 103, state: "Z", threads: 30})
	for who, want := range map[process]bool{
		{PID: 7, Start: 99}:   true,
		{PID: 7, Start: 98}:   false, // reused PID
		{PID: 8, Start: 100}:  false, // ended, not reaped
		{PID: 9, Start: 101}:  true,  // paused
		{PID: 10, Start: 102}: false,
		{PID: 11, Start: 103}: true, // exiting, still holding its files
	} {
		if got := proc.running(who); got != want {
			t.Errorf("running(%+v) = %t, want %t", who, got, want)
		}
		if got := proc.active(who); got != (want && who.PID != 9) {
			t.Errorf("active(%+v) = %t", who, got)
		}
	}
}

func TestInNamespaceSparesOurselvesAndOurAncestors(t *testing.T) {
	t.Parallel()
	const ours, other = "net:[4026532000]", "net:[4026531840]"
	proc := fakeProc(t,
		fakeProcess{pid: 1, start: 1, state: "S", namespace: other},
		fakeProcess{pid: 20, parent: 1, start: 20, state: "S", namespace: ours, command: "ceph-mon"},
		fakeProcess{pid: 21, parent: 1, start: 21, state: "S", namespace: other, command: "ceph-mon"},
		fakeProcess{pid: 30, parent: 1, start: 30, state: "S", namespace: ours, command: "sh"},
		fakeProcess{pid: 31, parent: 30, start: 31, state: "R", namespace: ours, command: "lab"},
		fakeProcess{pid: 32, parent: 30, start: 32, state: "S", namespace: ours, command: "sleep"},
		fakeProcess{pid: 40, parent: 1, start: 40, state: "Z", command: "dead"})
	got, err := proc.inNamespace(4026532000, 31)
	if err != nil {
		t.Fatal(err)
	}
	want := []process{{PID: 20, Start: 20}, {PID: 32, Start: 32}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTracedFindsTheTracersOwn(t *testing.T) {
	t.Parallel()
	proc := fakeProc(t,
		fakeProcess{pid: 20, start: 1, state: "S"},
		fakeProcess{pid: 21, start: 2, state: "t"},
		fakeProcess{pid: 22, start: 3, state: "t"})
	for pid, tracer := range map[string]string{"20": "0", "21": "20", "22": "7"} {
		status := "Name:\tx\nPid:\t" + pid + "\nTracerPid:\t" + tracer + "\nUid:\t0\n"
		if err := os.WriteFile(filepath.Join(string(proc), pid, "status"), []byte(status), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := proc.traced(20)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]process{{PID: 21, Start: 2}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestInGroupLeavesOutTheDead(t *testing.T) {
	t.Parallel()
	proc := fakeProc(t,
		fakeProcess{pid: 20, group: 20, start: 1, state: "Z"},
		fakeProcess{pid: 21, group: 20, start: 2, state: "t"},
		fakeProcess{pid: 22, group: 22, start: 3, state: "S"})
	got, err := proc.inGroup(20)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]process{{PID: 21, Start: 2}}, got); diff != "" {
		t.Error(diff)
	}
}
