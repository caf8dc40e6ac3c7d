//go:build e2e

package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestVolumesAreRefusedForAWhile has a policy that rejects volumes whose images were created.
func TestVolumesAreRefusedForAWhile(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "refused")
	p := start(t, e)
	e.AwaitBound(t, e.Claim(t, "before", class))
	before := awaitIdle(t, e, p)
	allow := refuseVolumes(t, e, class)
	stays, goes := e.Claim(t, "stays", class), e.Claim(t, "goes", class)
	awaitRefused(t, e, stays, goes)
	e.DeleteClaim(t, goes.Name)
	allow()
	volume := e.AwaitBound(t, stays)
	if got := framework.ImageOf(volume); got != e.ImageFor(stays) {
		t.Errorf("image %s, want %s", got, e.ImageFor(stays))
	}
	awaitNothingOf(t, e, goes) // its volume is created, and deleted with that of any deleted claim
	wantSameIdleState(t, e, p, before)
}

// TestAnImageWhoseVolumeWasRefusedIsRemoved stops the provisioner while images exist whose
// volumes are rejected, and then deletes one of the claims. No process has a record of its
// image then.
func TestAnImageWhoseVolumeWasRefusedIsRemoved(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *process){
		"killed": func(t *testing.T, p *process) { p.Kill(t) },
		"stopped": func(t *testing.T, p *process) {
			if code := p.Terminate(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if !strings.Contains(p.Log(), "Stopped before all operations have ended") {
				t.Error("the provisioner did not wait for its volumes to be saved")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			class := e.Class(t, "refused")
			allow := refuseVolumes(t, e, class)
			// The timeout limits the wait at the stop.
			p := start(t, e, "--leader-election=false", "--timeout="+(4*time.Second).String())
			stays, goes := e.Claim(t, "stays", class), e.Claim(t, "goes", class)
			awaitRefused(t, e, stays, goes)
			end(t, p)
			e.DeleteClaim(t, goes.Name)
			e.WantImage(t, e.ImageFor(goes), true)
			start(t, e, "--leader-election=false", "--orphan-grace=1s")
			allow()
			awaitNothingOf(t, e, goes)
			wantBoundOnce(t, e, []*corev1.PersistentVolumeClaim{stays})
		})
	}
}

// awaitRefused waits until the claims have images and events of the rejected volumes.
func awaitRefused(t *testing.T, e *framework.Env, claims ...*corev1.PersistentVolumeClaim) {
	t.Helper()
	for _, claim := range claims {
		e.AwaitEvent(t, claim, framework.Timeout, "ProvisioningFailed", "failed to create PersistentVolume", refusal)
		e.WantImage(t, e.ImageFor(claim), true)
	}
}

// awaitNothingOf waits until a deleted claim has neither image nor volume.
func awaitNothingOf(t *testing.T, e *framework.Env, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	e.Await(t, "image and volume of the deleted claim to be gone", framework.VolumeTimeout, func(ctx context.Context) error {
		if e.ImageExists(t, e.ImageFor(claim)) {
			return errors.New("its image exists")
		}
		_, err := e.Client.CoreV1().PersistentVolumes().Get(ctx, "pvc-"+string(claim.UID), metav1.GetOptions{})
		if err == nil {
			return errors.New("its volume exists")
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	})
}
