//go:build e2e

package specs

import (
	"context"
	"fmt"
	"regexp"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// isDefault is the annotation of the default class.
const isDefault = "storageclass.kubernetes.io/is-default-class"

// dfLine matches the line of a mounted image in the output of `df -T`.
var dfLine = regexp.MustCompile(`(?m)^/dev/rbd\d+\s+xfs\s.*\s/usr/share/nginx/html$`)

// TestStatefulSet is the main use case. A StatefulSet that names no class gets its volumes
// without manual work, and finds its data after its pods were replaced.
func TestStatefulSet(t *testing.T) {
	t.Parallel()
	framework.RequireKernelClient(t)
	e := newEnv(t)
	wantNoDefaultClass(t, e)
	e.Class(t, "default", framework.Parameter("fsType", "xfs"), func(class *storagev1.StorageClass) {
		class.Annotations = map[string]string{isDefault: "true"}
	})
	framework.Kubectl(t, "", "create", "--namespace", e.Namespace, "-f", "testdata/statefulset.yaml")
	keepNodeForOne(t, e)
	pods := awaitPods(t, e, nil)
	if pods[0].Spec.NodeName == pods[1].Spec.NodeName {
		t.Errorf("both pods are on node %s", pods[0].Spec.NodeName)
	}
	var volumes []*corev1.PersistentVolume
	for i, pod := range pods {
		volumes = append(volumes, e.AwaitBound(t, e.GetClaim(t, "www-"+pod.Name)))
		df := e.Exec(t, pod.Name, "df -hT")
		if !dfLine.MatchString(df) {
			t.Errorf("%s has no image mounted:\n%s", pod.Name, df)
		}
		e.Exec(t, pod.Name, "echo hello $(hostname) > /usr/share/nginx/html/index.html")
		awaitText(t, e, pod, fmt.Sprintf("hello web-%d\n", i))
	}

	e.DeletePod(t, "spacer") // the new pods may run on any node
	framework.Kubectl(t, "", "delete", "pod", "--namespace", e.Namespace, "-l", "app=nginx")
	for i, pod := range awaitPods(t, e, pods) {
		awaitText(t, e, pod, fmt.Sprintf("hello web-%d\n", i))
	}

	framework.Kubectl(t, "", "scale", "--namespace", e.Namespace, "statefulset/web", "--replicas=0")
	for _, pod := range pods {
		e.Await(t, pod.Name+" to be gone", framework.PodTimeout, func(ctx context.Context) error {
			list, err := e.Client.CoreV1().Pods(e.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + pod.Name})
			if err == nil && len(list.Items) > 0 {
				err = fmt.Errorf("it still exists")
			}
			return err
		})
	}
	for i, pod := range pods {
		e.DeleteClaim(t, "www-"+pod.Name)
		e.AwaitVolumeGone(t, volumes[i])
		e.WantImage(t, framework.ImageOf(volumes[i]), false)
	}
}

// wantNoDefaultClass ensures that the claims use the test's class.
func wantNoDefaultClass(t *testing.T, e *framework.Env) {
	t.Helper()
	list, err := e.Client.StorageV1().StorageClasses().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range list.Items {
		if class.Annotations[isDefault] == "true" {
			t.Fatalf("the cluster has the default class %s; remove it, because the test needs its own", class.Name)
		}
	}
}

// keepNodeForOne makes the scheduler choose another node for the second pod. It adds a pod with
// anti-affinity for nginx pods to the first pod's node. That pod bypasses the scheduler, and
// the first pod is already running.
func keepNodeForOne(t *testing.T, e *framework.Env) {
	t.Helper()
	var node string
	e.Await(t, "web-0 to be scheduled", framework.PodTimeout, func(ctx context.Context) error {
		pod, err := e.Client.CoreV1().Pods(e.Namespace).Get(ctx, "web-0", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if node = pod.Spec.NodeName; node == "" {
			return fmt.Errorf("it is %s", pod.Status.Phase)
		}
		return nil
	})
	e.Pod(t, "spacer", func(pod *corev1.Pod) {
		pod.Spec.NodeName = node
		pod.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
				TopologyKey:   corev1.LabelHostname,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "nginx"}},
			}},
		}}
	})
}

// awaitPods waits until web-0 and web-1 are ready and are not the old pods.
func awaitPods(t *testing.T, e *framework.Env, old []*corev1.Pod) []*corev1.Pod {
	t.Helper()
	var pods []*corev1.Pod
	for i := range 2 {
		name := fmt.Sprintf("web-%d", i)
		var pod *corev1.Pod
		e.Await(t, "pod "+name, framework.PodTimeout, func(ctx context.Context) (err error) {
			pod, err = e.Client.CoreV1().Pods(e.Namespace).Get(ctx, name, metav1.GetOptions{})
			if err == nil && old != nil && pod.UID == old[i].UID {
				err = fmt.Errorf("it is the old pod")
			}
			return err
		})
		pods = append(pods, e.AwaitReady(t, pod))
	}
	return pods
}

// awaitText requests a pod's page through the API server, which reaches the pods of every
// cluster. The pod has no probe, so it is ready a little before it listens.
func awaitText(t *testing.T, e *framework.Env, pod *corev1.Pod, want string) {
	t.Helper()
	e.Await(t, fmt.Sprintf("page of %s at %s", pod.Name, pod.Status.PodIP), framework.Timeout, func(ctx context.Context) error {
		body, err := e.Client.CoreV1().Pods(e.Namespace).ProxyGet("http", pod.Name, "80", "/", nil).DoRaw(ctx)
		if err == nil && string(body) != want {
			err = fmt.Errorf("got %q, want %q", body, want)
		}
		return err
	}, pod)
}
