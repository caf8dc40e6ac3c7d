//go:build e2e

package specs

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// writeData writes a file of random data and returns its checksum.
func writeData(t *testing.T, e *framework.Env, pod string) string {
	t.Helper()
	e.Exec(t, pod, "dd if=/dev/urandom of=/data/file bs=1M count=16 2>/dev/null && sync")
	return checksum(t, e, pod)
}

func checksum(t *testing.T, e *framework.Env, pod string) string {
	t.Helper()
	return strings.Fields(e.Exec(t, pod, "sha256sum /data/file"))[0]
}

// wantData requires that the file has this checksum.
func wantData(t *testing.T, e *framework.Env, pod, sum string) {
	t.Helper()
	if got := checksum(t, e, pod); got != sum {
		t.Errorf("%s: the file has sha256 %s, want %s", pod, got, sum)
	}
}

// wantFileSystem requires that the pod's file system has nearly this number of MiB.
func wantFileSystem(t *testing.T, e *framework.Env, pod string, mib int) {
	t.Helper()
	fields := strings.Fields(e.Exec(t, pod, "df -m /data | tail -n 1"))
	if got, err := strconv.Atoi(fields[1]); err != nil || got > mib || got < mib*9/10 {
		t.Errorf("%s: the file system has %s MiB, want nearly %d (%v)", pod, fields[1], mib, err)
	}
}

// TestExpansionWhileMounted expands volumes of running pods, without a restart.
func TestExpansionWhileMounted(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	pods, sums := map[string]*corev1.Pod{}, map[string]string{}
	for _, fsType := range []string{"ext4", "xfs"} {
		e.Claim(t, fsType, e.Class(t, fsType, framework.Expandable, framework.Parameter("fsType", fsType)))
		pods[fsType] = e.Pod(t, fsType, framework.Mount(fsType))
	}
	e.Claim(t, "block", e.Class(t, "block", framework.Expandable), framework.Block)
	pods["block"] = e.Pod(t, "block", framework.Device("block"))
	for name, pod := range pods {
		e.AwaitReady(t, pod)
		if name != "block" {
			sums[name] = writeData(t, e, name)
		}
	}
	e.Exec(t, "block", "echo at the end of 1Gi | dd of=/dev/data bs=1M seek=1023 conv=notrunc,fsync 2>/dev/null")
	for name := range pods {
		e.RequestSize(t, name, "2Gi")
	}
	for name, pod := range pods {
		e.AwaitSize(t, name, "2Gi", framework.PodTimeout)
		now := e.AwaitReady(t, pod)
		if now.UID != pod.UID || now.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("%s: the pod was restarted", name)
		}
	}
	for name, sum := range sums {
		wantFileSystem(t, e, name, 2048)
		wantData(t, e, name, sum)
		e.Exec(t, name, "dd if=/dev/zero of=/data/more bs=1M count=64 2>/dev/null && sync")
	}
	if got := e.Exec(t, "block", "blockdev --getsize64 /dev/data"); got != fmt.Sprint(2<<30) {
		t.Errorf("device of %s bytes, want 2Gi", got)
	}
	e.Exec(t, "block", "echo at the end of 2Gi | dd of=/dev/data bs=1M seek=2047 conv=notrunc,fsync 2>/dev/null")
	got := e.Exec(t, "block", "for i in 1023 2047; do dd if=/dev/data bs=1M skip=$i count=1 2>/dev/null | head -n 1; done")
	if want := "at the end of 1Gi\nat the end of 2Gi"; got != want {
		t.Errorf("read %q, want %q", got, want)
	}
}

// TestExpansionWhileUnmounted expands the file system at the next mount.
func TestExpansionWhileUnmounted(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	sums := map[string]string{}
	for _, fsType := range []string{"ext4", "xfs"} {
		e.Claim(t, fsType, e.Class(t, fsType, framework.Expandable, framework.Parameter("fsType", fsType)))
		e.Pod(t, fsType, framework.Mount(fsType))
	}
	for _, fsType := range []string{"ext4", "xfs"} {
		e.AwaitReady(t, e.GetPod(t, fsType))
		sums[fsType] = writeData(t, e, fsType)
		e.DeletePod(t, fsType)
		awaitNoWatcher(t, e, framework.ImageOf(e.AwaitBound(t, e.GetClaim(t, fsType))))
		e.RequestSize(t, fsType, "2Gi")
	}
	for fsType := range sums {
		e.AwaitFileSystemPending(t, fsType)
		e.Pod(t, fsType, framework.Mount(fsType))
	}
	for fsType, sum := range sums {
		e.AwaitReady(t, e.GetPod(t, fsType))
		e.AwaitSize(t, fsType, "2Gi", framework.PodTimeout)
		wantFileSystem(t, e, fsType, 2048)
		wantData(t, e, fsType, sum)
	}
}
