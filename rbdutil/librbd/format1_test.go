//go:build ceph

package librbd_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
)

// TestImagesOfFormat1: the predecessor rbd-provisioner created such images by default. Ceph has
// neither metadata nor a trash for them.
func TestImagesOfFormat1(t *testing.T) {
	ceph, cluster := newClusterWith(t, "format-1")
	images := rbdutil.NewImages(newStore(t, librbd.Options{}))
	ref := rbdutil.ImageRef{Pool: "format-1", Name: "kubernetes-dynamic-pvc-1e7f"}
	t.Setenv("RBD_FORCE_ALLOW_V1", "1") // otherwise this Ceph does not create them
	ceph.Run(t, "rbd", "create", "--size", "64", "--image-format", "1", ref.String())
	ceph.Write(t, ref)
	precondition := rbdutil.Precondition{Owner: rbdutil.Owner{VolumeName: "pvc-1e7f", Provisioner: "ceph.com/rbd", ClusterID: "here"}}
	if err := images.Delete(t.Context(), cluster, ref, precondition, 0); !errors.Is(err, rbdutil.ErrForeignImage) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrForeignImage)
	}
	precondition.AllowUnknown = true
	stop := ceph.Watch(t, ref)
	if err := images.Delete(t.Context(), cluster, ref, precondition, 0); !errors.Is(err, rbdutil.ErrImageInUse) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrImageInUse)
	}
	stop()
	ceph.Lock(t, ref)
	if err := images.Delete(t.Context(), cluster, ref, precondition, 0); !errors.Is(err, rbdutil.ErrLocked) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrLocked)
	}
	if _, err := images.Expand(t.Context(), cluster, ref, 128*rbdutil.MiB, precondition); !errors.Is(err, rbdutil.ErrLocked) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrLocked)
	}
	var locks []struct{ ID, Locker string }
	ceph.JSON(t, &locks, "rbd", "lock", "ls", ref.String())
	ceph.Run(t, "rbd", "lock", "rm", ref.String(), locks[0].ID, locks[0].Locker)
	if err := images.Delete(t.Context(), cluster, ref, precondition, time.Hour); !errors.Is(err, rbdutil.ErrNoTrash) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrNoTrash)
	}
	img, err := images.Expand(t.Context(), cluster, ref, 128*rbdutil.MiB, precondition)
	if err != nil || img.Size != 128*rbdutil.MiB {
		t.Errorf("size %d: %v", img.Size, err)
	}
	for range 2 {
		if err := images.Delete(t.Context(), cluster, ref, precondition, 0); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Contains(ceph.Images(t, ref.Pool), ref.Name) {
		t.Error("the image still exists")
	}
}
