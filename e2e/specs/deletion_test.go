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

// TestForcedDeletionSparesWhatIsMounted deletes a claim by force, and its volume too,
// under a pod that goes on writing. The image outlives the pod, and no longer.
func TestForcedDeletionSparesWhatIsMounted(t *testing.T) {
	t.Parallel()
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

// TestForcedDeletionOfTheVolumeKeepsTheImage takes the volume's finalizers away, too,
// so that nobody is left who could be asked to delete the image: nobody does.
func TestForcedDeletionOfTheVolumeKeepsTheImage(t *testing.T) {
	t.Parallel()
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

// deleteByForce deletes a claim or a volume, whoever may have a finalizer on it.
func deleteByForce(t *testing.T, e *framework.Env, kind, name string) {
	t.Helper()
	framework.Kubectl(t, "", "delete", kind, name, "--namespace", e.Namespace, "--wait=false")
	e.Await(t, kind+" "+name+" to be gone", framework.Patience, func(ctx context.Context) error {
		_, err := framework.TryKubectl(ctx, "", "patch", kind, name, "--namespace", e.Namespace,
			"--type", "merge", "-p", `{"metadata":{"finalizers":null}}`)
		if err != nil && strings.Contains(err.Error(), "not found") {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("it was still there")
		}
		return err
	})
}

// awaitRefusal waits for the event that says that the image cannot be deleted, and
// that names the pod's node.
func awaitRefusal(t *testing.T, e *framework.Env, volume *corev1.PersistentVolume, pod *corev1.Pod) corev1.Event {
	t.Helper()
	event := e.AwaitEvent(t, volume, framework.Patience, "VolumeFailedDelete", "image is in use", "the image will be deleted when it is no longer in use")
	if !strings.Contains(event.Message, "attached to node "+pod.Spec.NodeName) && !strings.Contains(event.Message, "open at "+pod.Status.HostIP) {
		t.Errorf("the event names neither node %s nor its address %s: %s", pod.Spec.NodeName, pod.Status.HostIP, event.Message)
	}
	return event
}

// writeOn writes to the image, not to the node's memory, and reads what was there.
func writeOn(t *testing.T, e *framework.Env, pod string) {
	t.Helper()
	got := e.Exec(t, pod, "dd if=/dev/zero of=/data/more bs=1M count=8 conv=fsync 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches 2>/dev/null || true; cat /data/file")
	if got != "before" {
		t.Errorf("the file has %q", got)
	}
}
