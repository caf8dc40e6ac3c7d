package framework

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// RequestSize requests another size for a claim, like `kubectl patch`.
func (e *Env) RequestSize(t *testing.T, claim, size string) {
	t.Helper()
	if err := e.TryRequestSize(t.Context(), claim, size); err != nil {
		t.Fatal(err)
	}
}

// TryRequestSize is RequestSize with an error.
func (e *Env) TryRequestSize(ctx context.Context, claim, size string) error {
	patch := fmt.Appendf(nil, `{"spec":{"resources":{"requests":{"storage":%q}}}}`, size)
	_, err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Patch(ctx, claim, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// AwaitSize waits until the claim has the size and no conditions.
func (e *Env) AwaitSize(t *testing.T, claim, size string, timeout time.Duration) {
	t.Helper()
	now := e.GetClaim(t, claim)
	e.Await(t, "claim "+claim+" to have "+size, timeout, func(ctx context.Context) (err error) {
		if now, err = e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Get(ctx, claim, metav1.GetOptions{}); err != nil {
			return err
		}
		if has := now.Status.Capacity[corev1.ResourceStorage]; !has.Equal(resource.MustParse(size)) || len(now.Status.Conditions) > 0 {
			return fmt.Errorf("it has %s and the conditions %v", has.String(), now.Status.Conditions)
		}
		return nil
	}, now)
}

// AwaitFileSystemPending waits until only the kubelet's file system expansion is pending.
func (e *Env) AwaitFileSystemPending(t *testing.T, claim string) {
	t.Helper()
	e.Await(t, "the file system expansion of claim "+claim+" to be pending", Timeout, func(ctx context.Context) error {
		now, err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Get(ctx, claim, metav1.GetOptions{})
		if err != nil {
			return err
		}
		conditions := now.Status.Conditions
		if len(conditions) != 1 || conditions[0].Type != corev1.PersistentVolumeClaimFileSystemResizePending || conditions[0].Status != corev1.ConditionTrue {
			return fmt.Errorf("its conditions are %v", conditions)
		}
		return nil
	}, e.GetClaim(t, claim))
}

// AwaitVolumeSize waits until a volume has the size, and requires the same size of its image.
func (e *Env) AwaitVolumeSize(t *testing.T, name, size string) {
	t.Helper()
	want := resource.MustParse(size)
	volume := e.GetVolume(t, name)
	e.Await(t, "volume "+name+" to have "+size, Timeout, func(ctx context.Context) (err error) {
		if volume, err = e.Client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if has := volume.Spec.Capacity[corev1.ResourceStorage]; !has.Equal(want) {
			return fmt.Errorf("it has %s", has.String())
		}
		return nil
	}, volume)
	if got := e.ImageInfo(t, ImageOf(volume)).Size; got != uint64(want.Value()) {
		t.Errorf("the image of volume %s has %d bytes, want %s", name, got, size)
	}
}

// AwaitTrashEmpty waits until the trash of the test's pool is empty.
func (e *Env) AwaitTrashEmpty(t *testing.T, timeout time.Duration) {
	t.Helper()
	e.Await(t, "the trash to be empty", timeout, func(ctx context.Context) error {
		trash, err := e.TryTrash(ctx)
		if err == nil && len(trash) > 0 {
			err = fmt.Errorf("it has %q", trash)
		}
		return err
	})
}
