//go:build e2e

package faults

import (
	"context"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestNothingIsLeftInAFullPool deletes the first claim of a pool that is full. Ceph removes an
// image through the pool's trash, which it creates on first use. In a full pool it cannot
// create the trash, and reports that the image does not exist.
func TestNothingIsLeftInAFullPool(t *testing.T) {
	r := newRig(t)
	claim := r.Claim(t, "data", r.sick)
	volume := r.AwaitBound(t, claim)
	end := fillPool(t, r)
	r.DeleteClaim(t, claim.Name)
	r.Await(t, "the end of the first attempt", framework.Timeout, func(ctx context.Context) error {
		_, err := r.Client.CoreV1().PersistentVolumes().Get(ctx, volume.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		events, err := r.Events(ctx, volume)
		for _, event := range events {
			if event.Reason == "VolumeFailedDelete" {
				return nil
			}
		}
		return errors.Join(err, errors.New("the volume exists and has no event"))
	}, volume)
	end()
	r.awaitIdle(t)
}

// TestPoolDeleted deletes the pool of some of the claims. The claims in the other pool are not
// affected, and the volumes are kept, because their pool may be restored.
func TestPoolDeleted(t *testing.T) {
	r := newRig(t)
	pool := r.Pool + "-doomed"
	r.PutSecret(t, "doomed", r.NewUser(t, pool, pool).Reveal())
	r.Ceph.Run(t, "ceph", "osd", "pool", "create", pool, "8")
	r.Ceph.Run(t, "rbd", "pool", "init", pool)
	class := r.Class(t, "doomed", framework.Parameter("pool", pool),
		framework.Parameter("adminId", pool), framework.Parameter("adminSecretName", "doomed"))
	var volumes []*corev1.PersistentVolume
	for i := range workers {
		volumes = append(volumes, r.AwaitBound(t, r.Claim(t, fmt.Sprintf("doomed-%d", i), class)))
	}
	stop := r.startLoad(t, r.sick)
	r.awaitBusy(t)

	r.Ceph.DeletePool(t, pool)
	late := r.Claim(t, "late", class)
	for i := range volumes {
		r.DeleteClaim(t, fmt.Sprintf("doomed-%d", i))
	}
	r.AwaitEvent(t, late, framework.Timeout, "ProvisioningFailed", "pool not found", "create pool "+pool)
	for _, volume := range volumes {
		r.AwaitRepeat(t, r.AwaitEvent(t, volume, framework.Timeout, "VolumeFailedDelete",
			"pool not found", "the volume is kept because pool "+pool+" may come back"))
	}
	for _, volume := range volumes {
		if phase := r.GetVolume(t, volume.Name).Status.Phase; phase != corev1.VolumeReleased {
			t.Errorf("volume %s is %s", volume.Name, phase)
		}
	}
	// More claims than workers, while the others are retried.
	r.createClaims(t, r.sick, 2*workers)
	stop()

	// The pool is restored, without the images.
	r.Ceph.CreatePool(t, pool)
	back := r.AwaitBound(t, late)
	for _, volume := range volumes {
		r.AwaitVolumeGone(t, volume)
	}
	r.DeleteClaim(t, late.Name)
	r.AwaitVolumeGone(t, back)
	if left := r.Ceph.Images(t, pool); len(left) > 0 {
		t.Errorf("images left in pool %s: %q", pool, left)
	}
	r.awaitIdle(t)
}
