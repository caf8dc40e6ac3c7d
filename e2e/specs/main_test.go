//go:build e2e

package specs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
)

const (
	deployment          = "rbd-provisioner"
	deploymentNamespace = metav1.NamespaceSystem
)

func TestMain(m *testing.M) {
	framework.Parallel(6)
	m.Run()
	if installed.Load() {
		if err := uninstall(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "failed to uninstall the provisioner:", err)
		}
	}
}

// uninstall waits for the end of the provisioner's pods before it deletes their roles.
// Otherwise they could not release the lease.
func uninstall(ctx context.Context) error {
	if _, err := framework.TryKubectl(ctx, "", "delete", "deployment", deployment, "--namespace", deploymentNamespace, "--cascade=foreground"); err != nil {
		return err
	}
	_, err := framework.TryKubectl(ctx, "", "delete", "-k", deployFolder(), "--ignore-not-found")
	return err
}

func deployFolder() string { return filepath.Join("..", "..", "deploy") }

// installed is true if these tests installed the provisioner.
var installed atomic.Bool

// newEnv creates the environment of a test, with the provisioner running.
func newEnv(t *testing.T) *framework.Env {
	t.Helper()
	e := framework.New(t, provisioner.DefaultName)
	e.AddLog("the provisioner's log", func(ctx context.Context) string { return provisionerLog(ctx, e) })
	if err := install(e); err != nil {
		t.Fatal(err)
	}
	e.Await(t, "the provisioner to be available", framework.PodTimeout, func(ctx context.Context) error {
		return available(ctx, e)
	})
	return e
}

var installing sync.Mutex

// install applies the directory deploy, unless the provisioner is installed.
func install(e *framework.Env) error {
	installing.Lock()
	defer installing.Unlock()
	ctx := context.Background()
	_, err := e.Client.AppsV1().Deployments(deploymentNamespace).Get(ctx, deployment, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	if _, err := framework.TryKubectl(ctx, "", "apply", "-k", deployFolder()); err != nil {
		return err
	}
	installed.Store(true)
	return nil
}

func available(ctx context.Context, e *framework.Env) error {
	now, err := e.Client.AppsV1().Deployments(deploymentNamespace).Get(ctx, deployment, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if now.Status.ObservedGeneration < now.Generation || now.Status.UpdatedReplicas < ptr.Deref(now.Spec.Replicas, 1) {
		return fmt.Errorf("its Deployment is being rolled out")
	}
	i := slices.IndexFunc(now.Status.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == appsv1.DeploymentAvailable })
	if i < 0 || now.Status.Conditions[i].Status != corev1.ConditionTrue {
		return fmt.Errorf("its Deployment is not available\n%s", provisionerLog(ctx, e))
	}
	return nil
}

// provisionerLog returns the logs and the states of all pods of the provisioner.
func provisionerLog(ctx context.Context, e *framework.Env) string {
	pods, err := e.Client.CoreV1().Pods(deploymentNamespace).List(ctx,
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + deployment})
	if err != nil {
		return err.Error()
	}
	var text strings.Builder
	for _, pod := range pods.Items {
		fmt.Fprintf(&text, "%s on %s: %s %v\n", pod.Name, pod.Spec.NodeName, pod.Status.Phase, pod.Status.ContainerStatuses)
		log, err := e.Client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{TailLines: ptr.To[int64](100)}).DoRaw(ctx)
		if err != nil {
			fmt.Fprintln(&text, err)
		}
		text.Write(log)
	}
	return text.String()
}
