//go:build e2e

package specs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// mounted returns the fields of the line of /proc/mounts for /data.
func mounted(t *testing.T, e *framework.Env, pod string) (device, fsType string, options []string) {
	t.Helper()
	line := e.Exec(t, pod, "grep ' /data ' /proc/mounts")
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "/dev/rbd") {
		t.Fatalf("%s has no image mounted: %q", pod, line)
	}
	return fields[0], fields[2], strings.Split(fields[3], ",")
}

// wantOneWatcher requires that only the pod's node has the image mapped.
func wantOneWatcher(t *testing.T, e *framework.Env, image rbdutil.ImageRef, pod *corev1.Pod) {
	t.Helper()
	watchers := e.Watchers(t, image)
	if len(watchers) != 1 {
		t.Errorf("image %s has watchers %q, want one", image, watchers)
		return
	}
	host, _, err := net.SplitHostPort(strings.SplitN(watchers[0], "/", 2)[0])
	if err != nil || host != pod.Status.HostIP {
		t.Errorf("image %s is mapped at %s, want at %s (%v)", image, watchers[0], pod.Status.HostIP, err)
	}
}

func TestFileSystems(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	pods, want := map[string]*corev1.Pod{}, map[string]string{"default": "ext4", "ext4": "ext4", "xfs": "xfs"}
	for name, fsType := range want {
		set := framework.Parameter("fsType", fsType)
		if name == "default" {
			set = framework.NoParameter("fsType")
		}
		e.Claim(t, name, e.Class(t, name, set))
		pods[name] = e.Pod(t, name, framework.Mount(name))
	}
	for name, pod := range pods {
		e.AwaitReady(t, pod)
		if _, fsType, _ := mounted(t, e, name); fsType != want[name] {
			t.Errorf("%s: file system %s, want %s", name, fsType, want[name])
		}
	}
}

func TestMountOptionsReachTheNode(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	class := e.Class(t, "noatime", func(class *storagev1.StorageClass) { class.MountOptions = []string{"noatime", "nodiratime"} })
	e.Claim(t, "data", class)
	e.RunPod(t, "user", framework.Mount("data"))
	_, _, options := mounted(t, e, "user")
	if text := strings.Join(options, ","); !strings.Contains(text, "noatime") {
		t.Errorf("mounted with %s", text)
	}
}

func TestBlock(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	const size = 64 << 20
	volume := e.AwaitBound(t, e.Claim(t, "data", e.Class(t, "block"), framework.Block, framework.Size("64Mi")))
	pod := e.RunPod(t, "user", framework.Device("data"))
	if got := e.Exec(t, "user", "blockdev --getsize64 /dev/data"); got != fmt.Sprint(size) {
		t.Errorf("device of %s bytes, want %d", got, size)
	}
	// The first, the last and a middle block.
	const blocks = "for i in 0 31 63; do "
	e.Exec(t, "user", blocks+"echo written at $i | dd of=/dev/data bs=1M seek=$i conv=notrunc,fsync 2>/dev/null; done")
	got := e.Exec(t, "user", blocks+"dd if=/dev/data bs=1M skip=$i count=1 2>/dev/null | head -n 1; done")
	if want := "written at 0\nwritten at 31\nwritten at 63"; got != want {
		t.Errorf("read %q, want %q", got, want)
	}
	inPod := strings.Fields(e.Exec(t, "user", "sha256sum /dev/data"))[0]
	image := framework.ImageOf(volume)
	wantOneWatcher(t, e, image, pod)
	e.DeletePod(t, "user")
	// The image in Ceph must equal the device in the pod.
	out, err := e.Ceph.Try(t.Context(), "rbd", "export", "--no-progress", image.String(), "-")
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(out); hex.EncodeToString(sum[:]) != inPod {
		t.Errorf("the image has sha256 %x, the device had %s", sum, inPod)
	}
}

func TestRetainedVolumesCanBeUsedAgain(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	class := e.Class(t, "retain", func(class *storagev1.StorageClass) {
		class.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimRetain)
	})
	volume := e.AwaitBound(t, e.Claim(t, "first", class))
	image := framework.ImageOf(volume)
	e.RunPod(t, "writer", framework.Mount("first"))
	e.Exec(t, "writer", "echo kept > /data/file")
	e.DeletePod(t, "writer")
	e.DeleteClaim(t, "first")
	awaitPhase(t, e, volume, corev1.VolumeReleased)
	e.WantImage(t, image, true)

	// An administrator makes a volume available like this.
	patch := []byte(`{"spec":{"claimRef":null}}`)
	if _, err := e.Client.CoreV1().PersistentVolumes().Patch(t.Context(), volume.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitPhase(t, e, volume, corev1.VolumeAvailable)
	e.AwaitBound(t, e.Claim(t, "second", class, func(claim *corev1.PersistentVolumeClaim) { claim.Spec.VolumeName = volume.Name }))
	e.RunPod(t, "reader", framework.Mount("second"))
	if got := e.Exec(t, "reader", "cat /data/file"); got != "kept" {
		t.Errorf("the file has %q", got)
	}
	e.DeletePod(t, "reader")
	e.DeleteClaim(t, "second")
	awaitPhase(t, e, volume, corev1.VolumeReleased)
	if err := e.Client.CoreV1().PersistentVolumes().Delete(t.Context(), volume.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.AwaitVolumeGone(t, volume)
	e.WantImage(t, image, true)
	awaitNoWatcher(t, e, image)
	e.RemoveImage(t, image)
}

func awaitPhase(t *testing.T, e *framework.Env, volume *corev1.PersistentVolume, want corev1.PersistentVolumePhase) {
	t.Helper()
	e.Await(t, fmt.Sprintf("volume to be %s", want), framework.Timeout, func(context.Context) error {
		if phase := e.GetVolume(t, volume.Name).Status.Phase; phase != want {
			return fmt.Errorf("it is %s", phase)
		}
		return nil
	}, volume)
}

// awaitNoWatcher waits until no node has the image mapped. The kubelet unmaps it shortly after
// the end of the last pod.
func awaitNoWatcher(t *testing.T, e *framework.Env, image rbdutil.ImageRef) {
	t.Helper()
	e.Await(t, "image "+image.String()+" to be free", framework.Timeout, func(context.Context) error {
		if watchers := e.Watchers(t, image); len(watchers) > 0 {
			return fmt.Errorf("it has watchers %q", watchers)
		}
		return nil
	})
}

// TestWaitForFirstConsumer also restricts the class to one node.
func TestWaitForFirstConsumer(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	_, node := e.Nodes(t)
	class := e.Class(t, "wait", func(class *storagev1.StorageClass) {
		class.VolumeBindingMode = ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
		class.AllowedTopologies = []corev1.TopologySelectorTerm{{
			MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: corev1.LabelHostname, Values: []string{node}}},
		}}
	})
	claim := e.Claim(t, "data", class)
	e.AwaitEvent(t, claim, framework.Timeout, "WaitForFirstConsumer")
	e.WantImage(t, e.ImageFor(claim), false)
	pod := e.RunPod(t, "consumer", framework.Mount("data"))
	volume := e.AwaitBound(t, claim)
	if pod.Spec.NodeName != node {
		t.Errorf("the pod is on %s, want %s", pod.Spec.NodeName, node)
	}
	terms := volume.Spec.NodeAffinity.Required.NodeSelectorTerms
	if len(terms) != 1 || len(terms[0].MatchExpressions) != 1 || terms[0].MatchExpressions[0].Key != corev1.LabelHostname {
		t.Errorf("node affinity %v", terms)
	}
	wantOneWatcher(t, e, framework.ImageOf(volume), pod)
}

func TestAPodThatMovesFindsItsData(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	first, second := e.Nodes(t)
	volume := e.AwaitBound(t, e.Claim(t, "data", e.Class(t, "moving")))
	image := framework.ImageOf(volume)
	pod := e.RunPod(t, "one", framework.Mount("data"), framework.OnNode(first))
	wantOneWatcher(t, e, image, pod)
	e.Exec(t, "one", "echo written on "+first+" > /data/file")
	e.DeletePod(t, "one")
	pod = e.RunPod(t, "two", framework.Mount("data"), framework.OnNode(second))
	if got := e.Exec(t, "two", "cat /data/file"); got != "written on "+first {
		t.Errorf("the file has %q", got)
	}
	wantOneWatcher(t, e, image, pod)
}

func TestTenAtOnce(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	first, second := e.Nodes(t)
	class := e.Class(t, "ten")
	var pods []*corev1.Pod
	for i := range 10 {
		name := fmt.Sprintf("data-%d", i)
		e.Claim(t, name, class)
		pods = append(pods, e.Pod(t, name, framework.Mount(name), framework.OnNode([]string{first, second}[i%2]),
			framework.Script("echo I am $(hostname) >> /data/file")))
	}
	for i, pod := range pods {
		pods[i] = e.AwaitReady(t, pod)
	}
	// By now each pod has written to its own image.
	for _, pod := range pods {
		wantOneWatcher(t, e, framework.ImageOf(e.AwaitBound(t, e.GetClaim(t, pod.Name))), pod)
		if got := e.Exec(t, pod.Name, "cat /data/file"); got != "I am "+pod.Name {
			t.Errorf("%s: the file has %q", pod.Name, got)
		}
	}
}

func TestTheOldAnnotationNamesTheClass(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	e.Claim(t, "data", "", framework.ClassByAnnotation(e.Class(t, "old", framework.Parameter("fsType", "xfs"))))
	e.RunPod(t, "user", framework.Mount("data"))
	if _, fsType, _ := mounted(t, e, "user"); fsType != "xfs" {
		t.Errorf("file system %s, want xfs", fsType)
	}
}

// TestUserSecretOfAnotherNamespace has no user secret in the claim's namespace.
func TestUserSecretOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	secrets, e := newEnv(t), newEnv(t)
	if err := e.Client.CoreV1().Secrets(e.Namespace).Delete(t.Context(), framework.UserSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	volume := e.AwaitBound(t, e.Claim(t, "data", secrets.Class(t, "shared", framework.Parameter("userSecretNamespace", secrets.Namespace))))
	if ref := volume.Spec.RBD.SecretRef; ref.Namespace != secrets.Namespace {
		t.Errorf("secret reference %v", ref)
	}
	e.RunPod(t, "user", framework.Mount("data"))
	mounted(t, e, "user")
}

func TestClassesOfThePredecessors(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	for name, class := range map[string]string{
		"kubernetes": e.KubernetesClass(t),
		"retired":    e.RetiredClass(t),
	} {
		volume := e.AwaitBound(t, e.Claim(t, name, class))
		pod := e.RunPod(t, name, framework.Mount(name))
		if _, fsType, _ := mounted(t, e, name); fsType != "ext4" {
			t.Errorf("%s: file system %s, want ext4", name, fsType)
		}
		wantOneWatcher(t, e, framework.ImageOf(volume), pod)
	}
}
