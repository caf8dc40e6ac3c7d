package framework

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// deleteObjects deletes all pods and claims of the test and waits until volumes and images are
// deleted too. Remaining objects are leaks.
func (e *Env) deleteObjects(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), PodTimeout+VolumeTimeout+4*Timeout)
	defer cancel()
	now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
	if err := e.Client.AppsV1().StatefulSets(e.Namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	e.awaitNone(ctx, t, "stateful sets", Timeout, func(ctx context.Context) (left []string, err error) {
		list, err := e.Client.AppsV1().StatefulSets(e.Namespace).List(ctx, metav1.ListOptions{})
		if err == nil {
			for _, set := range list.Items {
				left = append(left, set.Name)
			}
		}
		return left, err
	})
	// Pods get their grace period, so that the kubelet unmounts their volumes first.
	if err := e.Client.CoreV1().Pods(e.Namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	e.awaitNone(ctx, t, "pods", PodTimeout, e.podNames)
	if err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).DeleteCollection(ctx, now, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	e.awaitNone(ctx, t, "claims", Timeout, func(ctx context.Context) (left []string, err error) {
		claims, err := e.Claims(ctx)
		for _, claim := range claims {
			left = append(left, claim.Name)
		}
		return left, err
	})
	e.awaitNone(ctx, t, "volumes", VolumeTimeout, func(ctx context.Context) (left []string, err error) {
		volumes, err := e.Volumes(ctx)
		for _, volume := range volumes {
			left = append(left, fmt.Sprintf("%s (%s)", volume.Name, volume.Status.Phase))
		}
		return left, err
	})
	timeout := Timeout
	if t.Failed() {
		timeout = time.Second // the failure is known, and images are not deleted without their volumes
	}
	e.awaitNone(ctx, t, "images", timeout, e.TryImages)
}

func (e *Env) podNames(ctx context.Context) ([]string, error) {
	list, err := e.Client.CoreV1().Pods(e.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, pod := range list.Items {
		names = append(names, pod.Name)
	}
	return names, nil
}

// awaitNone waits until a list is empty. Remaining entries fail the test.
func (e *Env) awaitNone(ctx context.Context, t *testing.T, what string, timeout time.Duration, list func(context.Context) ([]string, error)) {
	t.Helper()
	err := await(ctx, timeout, func(ctx context.Context) error {
		left, err := list(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("remaining: %s", strings.Join(left, ", "))
		}
		return err
	})
	if err != nil {
		t.Errorf("leaked %s: not deleted with the test's other objects: %v", what, err)
	}
}

// forceDelete deletes, after a failure, objects that would disturb other tests.
func (e *Env) forceDelete(t *testing.T) {
	ctx, cancel := cleanupContext()
	defer cancel()
	volumes, err := e.Volumes(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, volume := range volumes {
		volume.Finalizers = nil
		volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
		if _, err := e.Client.CoreV1().PersistentVolumes().Update(ctx, &volume, metav1.UpdateOptions{}); err != nil {
			t.Log(err)
		}
		if err := e.Client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{}); err != nil {
			t.Log(err)
		}
	}
}
