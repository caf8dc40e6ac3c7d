package framework

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// PodImage is the image of the tests' pods.
const PodImage = "docker.io/library/busybox:1.36"

// PodOption modifies a pod before it is created.
type PodOption func(*corev1.Pod)

// OnNode restricts the pod to one node, by a node selector for the scheduler.
func OnNode(node string) PodOption {
	return func(pod *corev1.Pod) { pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node} }
}

// Mount mounts a claim's file system at /data.
func Mount(claim string) PodOption {
	return MountVolume(corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
	})
}

// MountVolume mounts any volume at /data.
func MountVolume(source corev1.VolumeSource) PodOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: source}}
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}
}

// Device attaches a claim's device as /dev/data.
func Device(claim string) PodOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}}}
		pod.Spec.Containers[0].VolumeDevices = []corev1.VolumeDevice{{Name: "data", DevicePath: "/dev/data"}}
	}
}

// Script is a command that the pod runs at its start. It must be short.
func Script(command string) PodOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Containers[0].Command = []string{"sh", "-euc", command + "; exec sleep 1000000"}
	}
}

// Pod creates a pod that only sleeps.
func (e *Env) Pod(t *testing.T, name string, options ...PodOption) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "main", Image: PodImage, Command: []string{"sleep", "1000000"},
			}},
			// With 0, the pod would be gone before its volumes are unmounted.
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			EnableServiceLinks:            ptr.To(false),
			AutomountServiceAccountToken:  ptr.To(false),
		},
	}
	for _, option := range options {
		option(pod)
	}
	pod, err := e.Client.CoreV1().Pods(e.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// GetPod reads the current state of a pod.
func (e *Env) GetPod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod, err := e.Client.CoreV1().Pods(e.Namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// RunPod creates a pod and waits until it is ready.
func (e *Env) RunPod(t *testing.T, name string, options ...PodOption) *corev1.Pod {
	t.Helper()
	return e.AwaitReady(t, e.Pod(t, name, options...))
}

// AwaitReady waits until a pod is ready.
func (e *Env) AwaitReady(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	var now *corev1.Pod
	e.Await(t, "pod "+pod.Name+" to be ready", PodTimeout, func(ctx context.Context) (err error) {
		now, err = e.Client.CoreV1().Pods(e.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && !ready(now) {
			err = fmt.Errorf("%s", describePod(*now))
		}
		return err
	}, pod)
	return now
}

func ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// DeletePod deletes a pod and waits until the kubelet has unmounted its volumes.
func (e *Env) DeletePod(t *testing.T, name string) {
	t.Helper()
	pods := e.Client.CoreV1().Pods(e.Namespace)
	if err := pods.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.Await(t, "pod "+name+" to be gone", PodTimeout, func(ctx context.Context) error {
		_, err := pods.Get(ctx, name, metav1.GetOptions{})
		return wantGone(err)
	})
}

// Exec runs a shell command in a pod of the test and returns its output.
func (e *Env) Exec(t *testing.T, pod, command string) string {
	t.Helper()
	// On a node under load, the container runtime sometimes loses the output of a command that
	// ends at once. So the end of the output is marked, and a command without the mark is
	// repeated. All commands of the specs can be repeated.
	const mark, attempts = "-- all of it --", 5
	for range attempts {
		out := Kubectl(t, "", "exec", "--namespace", e.Namespace, pod, "--", "sh", "-euc", command+"\necho '"+mark+"'")
		if out, whole := strings.CutSuffix(strings.TrimSpace(out), mark); whole {
			return strings.TrimSpace(out)
		}
		t.Logf("%s: the output of %q is incomplete: %q", pod, command, out)
	}
	t.Fatalf("%s: the output of %q was incomplete %d times", pod, command, attempts)
	return ""
}

// Nodes returns the names of two nodes that pods can be scheduled to.
func (e *Env) Nodes(t *testing.T) (first, second string) {
	t.Helper()
	one, two := e.nodes(t)
	return one.Labels[corev1.LabelHostname], two.Labels[corev1.LabelHostname]
}

func (e *Env) nodes(t *testing.T) (first, second corev1.Node) {
	t.Helper()
	list, err := e.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	free := slices.DeleteFunc(list.Items, func(node corev1.Node) bool {
		return node.Spec.Unschedulable || len(node.Spec.Taints) > 0
	})
	if len(free) < 2 {
		t.Fatalf("want two schedulable nodes, got %d", len(free))
	}
	return free[0], free[1]
}
