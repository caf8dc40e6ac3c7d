//go:build e2e

package specs

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestForcedDeletionSparesWhatIsMounted force-deletes a claim and deletes its volume while a
// pod writes. The image is kept until the pod ends, and removed then.
func TestForcedDeletionSparesWhatIsMounted(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	claim := e.Claim(t, "data", e.Class(t, "forced"))
	volume := e.AwaitBound(t, claim)
	image := framework.ImageOf(volume)
	pod := e.RunPod(t, "writer", framework.Mount("data"))
	e.Exec(t, "writer", "echo before > /data/file; sync")

	deleteByForce(t, e, "pvc", claim.Name)
	if err := e.Client.CoreV1().PersistentVolumes().Delete(t.Context(), volume.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.AwaitRepeat(t, awaitRefusal(t, e, volume, pod))
	writeOn(t, e, "writer")
	wantOneWatcher(t, e, image, pod)
	if e.GetVolume(t, volume.Name).DeletionTimestamp == nil {
		t.Error("the volume is not being deleted")
	}
	e.DeletePod(t, "writer")
	e.AwaitVolumeGone(t, volume)
	e.WantImage(t, image, false)
}

// TestForcedDeletionOfTheVolumeKeepsTheImage also removes the volume's finalizers. The
// provisioner gets no request to delete the image then, and must keep it.
func TestForcedDeletionOfTheVolumeKeepsTheImage(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	claim := e.Claim(t, "data", e.Class(t, "forced"))
	volume := e.AwaitBound(t, claim)
	image := framework.ImageOf(volume)
	pod := e.RunPod(t, "writer", framework.Mount("data"))
	e.Exec(t, "writer", "echo before > /data/file; sync")

	deleteByForce(t, e, "pvc", claim.Name)
	awaitRefusal(t, e, volume, pod)
	deleteByForce(t, e, "pv", volume.Name)
	writeOn(t, e, "writer")
	wantOneWatcher(t, e, image, pod)
	e.DeletePod(t, "writer")
	awaitNoWatcher(t, e, image)
	e.WantImage(t, image, true)
	e.RemoveImage(t, image)
}

// deleteByForce deletes a claim or a volume and removes its finalizers.
func deleteByForce(t *testing.T, e *framework.Env, kind, name string) {
	t.Helper()
	framework.Kubectl(t, "", "delete", kind, name, "--namespace", e.Namespace, "--wait=false")
	e.Await(t, kind+" "+name+" to be gone", framework.Timeout, func(ctx context.Context) error {
		_, err := framework.TryKubectl(ctx, "", "patch", kind, name, "--namespace", e.Namespace,
			"--type", "merge", "-p", `{"metadata":{"finalizers":null}}`)
		if err != nil && strings.Contains(err.Error(), "not found") {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("it still existed")
		}
		return err
	})
}

// awaitRefusal waits for the event that reports why the image cannot be deleted. It must name
// the pod's node.
func awaitRefusal(t *testing.T, e *framework.Env, volume *corev1.PersistentVolume, pod *corev1.Pod) corev1.Event {
	t.Helper()
	event := e.AwaitEvent(t, volume, framework.Timeout, "VolumeFailedDelete", "image is in use", "the image will be deleted when it is no longer in use")
	if !strings.Contains(event.Message, "attached to node "+pod.Spec.NodeName) && !strings.Contains(event.Message, "open at "+pod.Status.HostIP) {
		t.Errorf("the event names neither node %s nor its address %s: %s", pod.Spec.NodeName, pod.Status.HostIP, event.Message)
	}
	return event
}

// writeOn writes to the image, past the node's cache, and reads the earlier data.
func writeOn(t *testing.T, e *framework.Env, pod string) {
	t.Helper()
	got := e.Exec(t, pod, "dd if=/dev/zero of=/data/more bs=1M count=8 conv=fsync 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches 2>/dev/null || true; cat /data/file")
	if got != "before" {
		t.Errorf("the file has %q", got)
	}
}
