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

// sweep takes away all pods and claims of the test and waits until volumes and
// images have followed. What does not follow was leaked.
func (e *Env) sweep(t *testing.T) {
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
	// Pods end in their own way, so that the kubelet unmounts first.
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
		timeout = time.Second // it is not news any more, and these do not go by themselves
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

// awaitNone waits until a list is empty. What is still in it fails the test.
func (e *Env) awaitNone(ctx context.Context, t *testing.T, what string, timeout time.Duration, list func(context.Context) ([]string, error)) {
	t.Helper()
	err := await(ctx, timeout, func(ctx context.Context) error {
		left, err := list(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left are %s", strings.Join(left, ", "))
		}
		return err
	})
	if err != nil {
		t.Errorf("leaked %s: after everything else of the test was deleted: %v", what, err)
	}
}

// force takes away, after a failure, what would stay in the way of other tests.
func (e *Env) force(t *testing.T) {
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
