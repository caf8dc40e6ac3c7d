//go:build e2e

package faults

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestRescuedVolumesKeepTheirImages deletes claims by mistake while Ceph does not answer. Their
// owner sets all volumes to Retain before Ceph recovers. Moves to the trash that had timed out
// may be completed after that. The provisioner must restore the moved images.
func TestRescuedVolumesKeepTheirImages(t *testing.T) {
	for name, inflict := range map[string]func(*testing.T, *rig) func(){
		"osd-frozen": pause("osd.0"), "osd-slow": pauseRepeatedly("osd.0"),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "--orphan-grace=1s")
			volumes, sums := r.written(t, 24)
			relieve := inflict(t, r)
			r.deleteClaims(t)
			r.Await(t, "some deletions to fail or succeed", framework.Timeout, func(ctx context.Context) error {
				settled := 0
				for _, volume := range volumes {
					events, err := r.Events(ctx, volume)
					if err != nil {
						return err
					}
					if slices.ContainsFunc(events, func(e corev1.Event) bool { return e.Reason == "VolumeFailedDelete" }) {
						settled++
					}
				}
				now, err := r.Volumes(ctx)
				if settled += len(volumes) - len(now); err == nil && settled < len(volumes)/3 {
					err = fmt.Errorf("%d", settled)
				}
				return err
			})
			rescued := r.setPolicies(t, "Retain")
			relieve()
			r.wantImages(t, rescued, sums)
			// The trash is scanned every ten seconds, which must not remove an image either.
			time.Sleep(15 * time.Second)
			r.wantImages(t, rescued, sums)
			t.Logf("%d of %d volumes were rescued", len(rescued), len(volumes))
			r.setPolicies(t, "Delete")
			r.awaitIdle(t)
			r.AwaitTrashEmpty(t, framework.VolumeTimeout)
		})
	}
}

// written creates volumes with data, and returns their checksums by image name.
func (r *rig) written(t *testing.T, n int) (volumes []*corev1.PersistentVolume, sums map[string]string) {
	t.Helper()
	var claims []*corev1.PersistentVolumeClaim
	for i := range n {
		claims = append(claims, r.Claim(t, fmt.Sprintf("claim-%d", i), r.sick, framework.Size("8Mi")))
	}
	sums = map[string]string{}
	for _, claim := range claims {
		volume := r.AwaitBound(t, claim)
		r.Ceph.Write(t, framework.ImageOf(volume))
		sum, err := r.sum(t.Context(), volume.Spec.RBD.RBDImage)
		if err != nil {
			t.Fatal(err)
		}
		sums[volume.Spec.RBD.RBDImage] = sum
		volumes = append(volumes, volume)
	}
	return volumes, sums
}

func (r *rig) sum(ctx context.Context, image string) (string, error) {
	data, err := r.Ceph.Try(ctx, "rbd", "export", "--no-progress", r.Pool+"/"+image, "-")
	return fmt.Sprintf("%x", sha256.Sum256(data)), err
}

// setPolicies sets the reclaim policy of all existing volumes and returns these. A volume that
// is deleted meanwhile is not rescued.
func (r *rig) setPolicies(t *testing.T, policy string) []corev1.PersistentVolume {
	t.Helper()
	volumes, err := r.Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	patch := fmt.Sprintf(`{"spec":{"persistentVolumeReclaimPolicy":%q}}`, policy)
	var set []corev1.PersistentVolume
	for _, volume := range volumes {
		now, err := r.Client.CoreV1().PersistentVolumes().Patch(t.Context(), volume.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if err == nil && now.DeletionTimestamp == nil {
			set = append(set, *now)
		}
	}
	return set
}

// wantImages waits until each volume has its image, with its name and data.
func (r *rig) wantImages(t *testing.T, volumes []corev1.PersistentVolume, sums map[string]string) {
	t.Helper()
	r.Await(t, "each rescued volume to have its image", framework.Timeout, func(ctx context.Context) error {
		images, err := r.TryImages(ctx)
		if err != nil {
			return err
		}
		for _, volume := range volumes {
			if !slices.Contains(images, volume.Spec.RBD.RBDImage) {
				return fmt.Errorf("volume %s has lost its image %s", volume.Name, volume.Spec.RBD.RBDImage)
			}
			// A late move may remove the image for a moment, until it is restored.
			sum, err := r.sum(ctx, volume.Spec.RBD.RBDImage)
			if err != nil || sum != sums[volume.Spec.RBD.RBDImage] {
				return errors.Join(err, fmt.Errorf("volume %s has other data than before", volume.Name))
			}
		}
		return nil
	})
}
