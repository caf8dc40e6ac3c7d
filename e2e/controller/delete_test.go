//go:build e2e

package controller

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// deletion is a bound claim to delete in some special state.
type deletion struct {
	*framework.Env
	class  string
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
	image  rbdutil.ImageRef
}

// TestDeletion deletes claims whose images cannot simply be removed.
func TestDeletion(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	// All cases are in one call of Run, because the Env ends with its test.
	t.Run("cases", func(t *testing.T) {
		for name, run := range map[string]func(*testing.T, *deletion){
			"watched":              deleteWatched,
			"with-snapshots":       deleteWithSnapshots,
			"with-a-clone":         deleteWithClone,
			"image-gone":           deleteImageGone,
			"of-another-owner":     deleteOfAnotherOwner,
			"of-no-owner":          deleteOfNoOwner,
			"in-use-by-a-node":     deleteInUse,
			"attached-to-a-node":   deleteAttached,
			"class-gone":           deleteClassGone,
			"volume-deleted-first": deleteVolumeFirst,
			"secret-gone":          deleteSecretGone,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t, newDeletion(t, e, name))
			})
		}
		t.Run("pool-gone", func(t *testing.T) {
			t.Parallel()
			deletePoolGone(t, e)
		})
		t.Run("retained", func(t *testing.T) {
			t.Parallel()
			deleteRetained(t, e)
		})
	})
}

func newDeletion(t *testing.T, e *framework.Env, name string, options ...framework.ClassOption) *deletion {
	t.Helper()
	d := &deletion{Env: e, class: e.Class(t, name, options...)}
	d.claim = e.Claim(t, name, d.class)
	d.volume = e.AwaitBound(t, d.claim)
	d.image = framework.ImageOf(d.volume)
	return d
}

// refused deletes the claim, waits until the volume's deletion has failed twice with the
// phrases, and checks that the volume is kept.
func (d *deletion) refused(t *testing.T, phrases ...string) {
	t.Helper()
	d.DeleteClaim(t, d.claim.Name)
	d.AwaitRepeat(t, d.AwaitEvent(t, d.volume, framework.Timeout, "VolumeFailedDelete", phrases...))
	if phase := d.GetVolume(t, d.volume.Name).Status.Phase; phase != corev1.VolumeReleased {
		t.Errorf("the volume is %s", phase)
	}
}

// gone waits until volume and image are gone.
func (d *deletion) gone(t *testing.T) {
	t.Helper()
	d.AwaitVolumeGone(t, d.volume)
	d.WantImage(t, d.image, false)
}

func deleteWatched(t *testing.T, d *deletion) {
	stop := d.Ceph.Watch(t, d.image)
	addresses := d.Watchers(t, d.image)
	if len(addresses) != 1 {
		t.Fatalf("watchers %q, want one", addresses)
	}
	d.refused(t, "image is in use", d.image.String()+" is mapped or open at "+addresses[0], "the image will be deleted when it is no longer in use")
	d.WantImage(t, d.image, true)
	stop()
	d.gone(t)
}

func deleteWithSnapshots(t *testing.T, d *deletion) {
	d.Ceph.Snapshot(t, d.image, "monday")
	d.Ceph.Snapshot(t, d.image, "tuesday")
	d.refused(t, "image has snapshots", d.image.String()+" has monday, tuesday", "if their data is not needed, flatten their clones and remove them (`rbd snap ls --all`, `rbd flatten`, `rbd snap rm`)")
	d.WantImage(t, d.image, true)
	d.Ceph.Run(t, "rbd", "snap", "purge", "--no-progress", d.image.String())
	d.gone(t)
}

func deleteImageGone(t *testing.T, d *deletion) {
	d.RemoveImage(t, d.image)
	d.DeleteClaim(t, d.claim.Name)
	d.gone(t)
}

func deleteOfAnotherOwner(t *testing.T, d *deletion) {
	record := d.Record(t, d.image)
	other := record
	other.VolumeName = "pvc-other"
	d.SetRecord(t, d.image, other.Encode())
	d.refused(t, "image has another owner", `volume "pvc-other"`, `not volume "`+d.volume.Name+`"`)
	d.WantImage(t, d.image, true)
	d.SetRecord(t, d.image, record.Encode())
	d.gone(t)
}

// deleteClassGone: the volume has all the information.
func deleteClassGone(t *testing.T, d *deletion) {
	d.DeleteClass(t, d.class)
	d.DeleteClaim(t, d.claim.Name)
	d.gone(t)
}

// deleteVolumeFirst: the volume's object is kept until its image is removed.
func deleteVolumeFirst(t *testing.T, d *deletion) {
	if err := d.Client.CoreV1().PersistentVolumes().Delete(t.Context(), d.volume.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	d.DeleteClaim(t, d.claim.Name)
	d.gone(t)
}

func deleteSecretGone(t *testing.T, d *deletion) {
	secrets := d.Client.CoreV1().Secrets(d.Namespace)
	annotate(t, d.Env, d.volume, map[string]string{"volume.kubernetes.io/provisioner-deletion-secret-name": "moved"})
	d.refused(t, "admin secret "+d.Namespace+"/moved does not exist")
	d.WantImage(t, d.image, true)
	old, err := secrets.Get(t.Context(), framework.AdminSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.PutSecret(t, "moved", string(old.Data["key"]))
	d.gone(t)
}

// deletePoolGone: a pool that cannot be found may still exist.
func deletePoolGone(t *testing.T, e *framework.Env) {
	pool := e.Pool + "-gone"
	e.PutSecret(t, "gone", e.NewUser(t, pool, pool).Reveal())
	e.Ceph.Run(t, "ceph", "osd", "pool", "create", pool, "8")
	e.Ceph.Run(t, "rbd", "pool", "init", pool)
	d := newDeletion(t, e, "pool-gone", framework.Parameter("pool", pool),
		framework.Parameter("adminId", pool), framework.Parameter("adminSecretName", "gone"))
	e.Ceph.DeletePool(t, pool)
	d.refused(t, "open pool "+pool, "pool not found", "the volume is kept because pool "+pool+" may come back")
	// The pool is restored, without the image.
	e.Ceph.CreatePool(t, pool)
	d.AwaitVolumeGone(t, d.volume)
}

// deleteRetained has no event to wait for. It waits for the deletion of a later claim instead.
func deleteRetained(t *testing.T, e *framework.Env) {
	retain := func(class *storagev1.StorageClass) {
		class.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimRetain)
	}
	d := newDeletion(t, e, "retained", retain)
	after := newDeletion(t, e, "after-retained")
	if len(d.volume.Finalizers) != 1 {
		t.Errorf("finalizers %q, want one: the provisioner's would never be removed", d.volume.Finalizers)
	}
	d.DeleteClaim(t, d.claim.Name)
	e.Await(t, "volume to be released", framework.Timeout, func(context.Context) error {
		if phase := d.GetVolume(t, d.volume.Name).Status.Phase; phase != corev1.VolumeReleased {
			return fmt.Errorf("it is %s", phase)
		}
		return nil
	}, d.volume)
	after.DeleteClaim(t, after.claim.Name)
	after.gone(t)
	d.WantImage(t, d.image, true)
	if err := e.Client.CoreV1().PersistentVolumes().Delete(t.Context(), d.volume.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.AwaitVolumeGone(t, d.volume)
	d.WantImage(t, d.image, true)
	d.RemoveImage(t, d.image)
}
