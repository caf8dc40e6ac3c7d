package expansion

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// fileSystemPending says what is left of the expansion of a volume with a file system.
const fileSystemPending = "the kubelet expands the file system now if it is mounted, otherwise at the next mount"

// markResizing sets the condition Resizing on the claim.
func (c *Controller) markResizing(ctx context.Context, claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	if hasCondition(claim, corev1.PersistentVolumeClaimResizing) {
		return claim, nil
	}
	request := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	marked, err := c.patchStatus(ctx, claim, func(status *corev1.PersistentVolumeClaimStatus) {
		status.Conditions = withResizeCondition(status.Conditions, corev1.PersistentVolumeClaimResizing, "")
	})
	if err == nil {
		c.Events.Eventf(claim, corev1.EventTypeNormal, reasonResizing, "expanding the image of volume %s to %s", volume.Name, request.String())
	}
	return marked, err
}

// finishControllerExpansion updates the claim when the image and the volume have the
// capacity. A claim with a file system gets the condition FileSystemResizePending. A
// claim for a block volume gets the capacity.
func (c *Controller) finishControllerExpansion(ctx context.Context, claim *corev1.PersistentVolumeClaim, capacity resource.Quantity) error {
	if isBlock(claim) {
		_, err := c.patchStatus(ctx, claim, func(status *corev1.PersistentVolumeClaimStatus) {
			if status.Capacity == nil {
				status.Capacity = corev1.ResourceList{}
			}
			status.Capacity[corev1.ResourceStorage] = capacity
			status.Conditions = withResizeCondition(status.Conditions, "", "")
		})
		return err
	}
	if hasCondition(claim, corev1.PersistentVolumeClaimFileSystemResizePending) {
		return nil
	}
	_, err := c.patchStatus(ctx, claim, func(status *corev1.PersistentVolumeClaimStatus) {
		status.Conditions = withResizeCondition(status.Conditions, corev1.PersistentVolumeClaimFileSystemResizePending, fileSystemPending)
	})
	return err
}

func hasCondition(claim *corev1.PersistentVolumeClaim, kind corev1.PersistentVolumeClaimConditionType) bool {
	return slices.ContainsFunc(claim.Status.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
		return c.Type == kind && c.Status == corev1.ConditionTrue
	})
}

// withResizeCondition replaces the conditions of an expansion by the one of the kind, or
// by none if kind is empty.
func withResizeCondition(conditions []corev1.PersistentVolumeClaimCondition, kind corev1.PersistentVolumeClaimConditionType, message string) []corev1.PersistentVolumeClaimCondition {
	conditions = slices.DeleteFunc(slices.Clone(conditions), func(c corev1.PersistentVolumeClaimCondition) bool {
		return c.Type == corev1.PersistentVolumeClaimResizing || c.Type == corev1.PersistentVolumeClaimFileSystemResizePending
	})
	if kind == "" {
		return conditions
	}
	return append(conditions, corev1.PersistentVolumeClaimCondition{
		Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(), Message: message,
	})
}

// patchStatus changes the claim's status, unless the claim has changed since it was read:
// the kubelet may have finished the expansion.
func (c *Controller) patchStatus(ctx context.Context, claim *corev1.PersistentVolumeClaim, change func(*corev1.PersistentVolumeClaimStatus)) (*corev1.PersistentVolumeClaim, error) {
	before, after := claim.DeepCopy(), claim.DeepCopy()
	change(&after.Status)
	// The patch then contains the resourceVersion and UID of the claim.
	before.ResourceVersion, before.UID = "", ""
	old, err := json.Marshal(before)
	if err != nil {
		return nil, err
	}
	changed, err := json.Marshal(after)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(old, changed, claim)
	if err != nil {
		return nil, err
	}
	patched, err := c.Client.PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, fmt.Errorf("patch the status of the claim: %w", err)
	}
	return patched, nil
}

// setCapacity sets the capacity of the volume, unless the volume has changed since it was
// read.
func (c *Controller) setCapacity(ctx context.Context, volume *corev1.PersistentVolume, capacity resource.Quantity) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": volume.UID, "resourceVersion": volume.ResourceVersion},
		"spec":     map[string]any{"capacity": corev1.ResourceList{corev1.ResourceStorage: capacity}},
	})
	if err != nil {
		return err
	}
	_, err = c.Client.PersistentVolumes().Patch(ctx, volume.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patch volume %s: %w", volume.Name, err)
	}
	return nil
}
