//go:build e2e

package specs

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestClonesOfAMountedVolume clones a volume that a pod writes to. One clone is on the same
// node, where the file systems must not be confused, and a larger one on another node. Then the
// source is deleted.
func TestClonesOfAMountedVolume(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			first, second := e.Nodes(t)
			class := e.Class(t, fsType, framework.Parameter("fsType", fsType)) // without allowVolumeExpansion
			source := e.AwaitBound(t, e.Claim(t, "source", class))
			e.RunPod(t, "source", framework.Mount("source"), framework.OnNode(first))
			sum := writeData(t, e, "source")

			e.Claim(t, "same", class, framework.CloneOf("source"))
			e.Claim(t, "larger", class, framework.CloneOf("source"), framework.Size("2Gi"))
			pods := []*corev1.Pod{
				e.Pod(t, "same", framework.Mount("same"), framework.OnNode(first)),
				e.Pod(t, "larger", framework.Mount("larger"), framework.OnNode(second)),
			}
			for _, pod := range pods {
				e.AwaitReady(t, pod)
				wantData(t, e, pod.Name, sum)
				e.Exec(t, pod.Name, "echo "+pod.Name+" > /data/own && sync")
			}
			e.AwaitSize(t, "larger", "2Gi", framework.PodTimeout)
			wantFileSystem(t, e, "larger", 2048)
			wantFileSystem(t, e, "same", 1024)
			if got := e.Exec(t, "source", "ls /data"); strings.Contains(got, "own") {
				t.Errorf("the source has data of its clone: %s", got)
			}

			e.DeletePod(t, "source")
			e.DeleteClaim(t, "source")
			e.AwaitVolumeGone(t, source)
			// The node's cache is dropped with the pod.
			e.DeletePod(t, "same")
			e.RunPod(t, "same", framework.Mount("same"), framework.OnNode(second))
			for _, pod := range pods {
				wantData(t, e, pod.Name, sum)
				if got := e.Exec(t, pod.Name, "cat /data/own"); got != pod.Name {
					t.Errorf("%s has %q in its own file", pod.Name, got)
				}
			}
		})
	}
}

// TestReadOnlyManyOnTwoNodes mounts one clone on two nodes at once.
func TestReadOnlyManyOnTwoNodes(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.RequireSeparateKernels(t)
			first, second := e.Nodes(t)
			class := e.Class(t, fsType, framework.Parameter("fsType", fsType))
			image := framework.ImageOf(e.AwaitBound(t, e.Claim(t, "source", class)))
			e.RunPod(t, "writer", framework.Mount("source"))
			sum := writeData(t, e, "writer")
			readers := e.Claim(t, "readers", class, framework.CloneOf("source"), framework.Modes(corev1.ReadOnlyMany))
			e.AwaitEvent(t, readers, framework.Timeout, "ProvisioningFailed", "image is in use: "+image.String())
			e.DeletePod(t, "writer")

			volume := e.AwaitBound(t, readers)
			var pods []*corev1.Pod
			for name, node := range map[string]string{"one": first, "two": second} {
				pods = append(pods, e.Pod(t, name, framework.Mount("readers"), framework.OnNode(node)))
			}
			for _, pod := range pods {
				e.AwaitReady(t, pod)
			}
			if watchers := e.Watchers(t, framework.ImageOf(volume)); len(watchers) != 2 {
				t.Errorf("the clone is mapped at %q, want two nodes", watchers)
			}
			for _, pod := range pods {
				wantData(t, e, pod.Name, sum)
				if got := e.Exec(t, pod.Name, "touch /data/x 2>&1 || true"); !strings.Contains(got, "Read-only file system") {
					t.Errorf("%s can write: %q", pod.Name, got)
				}
			}
		})
	}
}
