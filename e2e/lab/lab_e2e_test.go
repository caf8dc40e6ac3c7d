//go:build e2e

package lab

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// buildCommand builds the command lab.
func buildCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lab")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/lab").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// temporary returns a lab that is stopped at the end of the test.
func temporary(t *testing.T, name string) *Lab {
	t.Helper()
	l, err := New(name, Options{Out: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// assertGone checks that only the logs of a lab are left.
func assertGone(t *testing.T, l *Lab, inode uint64) {
	t.Helper()
	if left, err := hostProc.inNamespace(inode, os.Getpid()); err != nil || len(left) > 0 {
		t.Errorf("processes: %v, %v", left, err)
	}
	for _, path := range []string{l.net.path(), l.runFile(), l.Kubeconfig(), l.Ceph().ConfFile()} {
		if exists(path) {
			t.Errorf("%s was not removed", path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{l.net.path(), l.runFile(), l.stateFile()} {
		if bytes.Contains(mounts, []byte(path)) {
			t.Errorf("something is mounted at %s", path)
		}
	}
}

func TestSurvivesAKillAtAnyMoment(t *testing.T) {
	l := temporary(t, "killed")
	command := buildCommand(t)
	for round := range 6 {
		version := []string{"16", "18"}[round/2%2]
		cmd := exec.Command(command, "up", l.Name(), "--nodes", "1", "--ceph", version)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(rand.IntN(12000)) * time.Millisecond
		t.Logf("round %d: killed after %s, Ceph %s", round, after, version)
		time.Sleep(after)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if round%2 == 0 {
			continue // the next round removes the remains
		}
		inode, _, err := l.net.inode()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if out, err := exec.Command(command, "down", l.Name()).CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("down: %v\n%s", err, out)
			}
			assertGone(t, l, inode)
		}
	}
	if out, err := exec.Command(command, "run", l.Name(), "--nodes", "0", "--", "sh", "-c", "rbd ls kube && kubectl get ns && exit 7").CombinedOutput(); err == nil || err.Error() != "exit status 7" {
		t.Fatalf("run: %v, want its program's status 7\n%s", err, out)
	}
	assertGone(t, l, 0)
}

func TestTwoLabsAtOnce(t *testing.T) {
	labs := []*Lab{temporary(t, "one"), temporary(t, "two")}
	var group errgroup.Group
	for _, l := range labs {
		group.Go(func() error { return l.Up(t.Context(), UpOptions{}) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, l := range labs {
		// Both use the same addresses, with a cluster of their own.
		if _, err := l.output(t.Context(), "rbd", "create", "kube/"+l.Name(), "--size", "1G"); err != nil {
			t.Fatal(err)
		}
		out, err := l.output(t.Context(), "rbd", "ls", "kube")
		if err != nil || strings.TrimSpace(string(out)) != l.Name() {
			t.Errorf("images of lab %s: %q, %v", l.Name(), out, err)
		}
		id, err := l.output(t.Context(), "kubectl", "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, string(id))
	}
	if ids[0] == ids[1] {
		t.Errorf("both labs have the same cluster %s", ids[0])
	}
	if err := labs[0].Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := labs[1].get(t.Context(), "/readyz"); err != nil {
		t.Errorf("second lab after the stop of the first: %v", err)
	}
}

func TestFaultsOfANode(t *testing.T) {
	l := temporary(t, "faults")
	if err := l.Up(t.Context(), UpOptions{Nodes: 1}); err != nil {
		t.Fatal(err)
	}
	node, err := l.Daemon(l.Node(0).Name())
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := l.output(ctx, "kubectl", "get", "--raw", "/api/v1/nodes/node-0/proxy/healthz"); err == nil {
		t.Error("a paused node responded")
	}
	if err := node.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := l.Node(0).WaitReady(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := node.Kill(); err != nil {
		t.Fatal(err)
	}
	if left, err := hostProc.inGroup(node.PID()); err != nil || len(left) > 0 {
		t.Errorf("remaining processes of the node: %v, %v", left, err)
	}
	if err := l.Node(0).WaitReady(t.Context(), time.Second); err == nil {
		t.Error("a killed node is ready")
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Node(0).WaitReady(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
}

func TestDurableCephOutlivesItsOSD(t *testing.T) {
	l := temporary(t, "durable")
	if err := l.Up(t.Context(), UpOptions{NoKubernetes: true, Ceph: CephOptions{Durable: true}}); err != nil {
		t.Fatal(err)
	}
	osd, err := l.Daemon("osd.0")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		image := fmt.Sprintf("kube/image-%d", i)
		if _, err := l.output(t.Context(), "rbd", "create", image, "--size", "1G"); err != nil {
			t.Fatal(err)
		}
		if err := osd.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := osd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := l.output(ctx, "rbd", "info", image); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCephInADirectory(t *testing.T) {
	l := temporary(t, "directory")
	// Up checks the version of the daemons.
	opts := UpOptions{NoKubernetes: true, CephVersion: RootCeph, Ceph: CephOptions{Durable: true}}
	if err := l.Up(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	inode, _, err := l.net.inode()
	if err != nil {
		t.Fatal(err)
	}
	command := buildCommand(t)
	for version, want := range map[string]string{"16": "ceph version 16.", "18": "ceph version 18."} {
		out, err := exec.Command(command, "exec", l.Name(), "--librbd", version, "--", "rbd", "--version").CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("with librbd %s: %q, %v, want %s", version, out, err, want)
		}
		// Both versions of the commands can use the cluster.
		image := "kube/image-" + version
		if out, err := exec.Command(command, "exec", l.Name(), "--librbd", version, "--", "rbd", "create", image, "--size", "1G").CombinedOutput(); err != nil {
			t.Errorf("with librbd %s: %q, %v", version, out, err)
		}
	}
	// Faults reach the daemon, and it starts again in the directory.
	osd, err := l.Daemon("osd.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := osd.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := osd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := l.output(ctx, "rbd", "info", "kube/image-18"); err != nil {
		t.Fatal(err)
	}
	if err := l.Ceph().checkVersion(ctx); err != nil {
		t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(l.settings.CephRoot)) {
		t.Errorf("the directory is mounted on the host: %v\n%s", err, mounts)
	}
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	assertGone(t, l, inode)
}
