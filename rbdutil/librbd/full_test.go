//go:build ceph

package librbd_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
)

// TestAFullPoolSaysSoAndLetsImagesGo: Ceph's client would wait for room by itself,
// and what makes room would wait behind what needs it.
func TestAFullPoolSaysSoAndLetsImagesGo(t *testing.T) {
	t.Parallel()
	const full = "full"
	ceph, cluster := newClusterWith(t, full)
	store := newStore(t, librbd.Options{Timeout: 10 * time.Second})
	images := rbdutil.NewImages(store)
	spec := rbdutil.ImageSpec{
		ImageRef: rbdutil.ImageRef{Pool: full, Name: "old"}, Layout: rbdutil.Layout{Features: rbdutil.Layering},
		Size: rbdutil.MiB, Owner: rbdutil.Owner{ClaimUID: "1", VolumeName: "pvc-1"},
	}
	if _, err := images.Ensure(t.Context(), cluster, spec); err != nil {
		t.Fatal(err)
	}
	ceph.Run(t, "ceph", "osd", "pool", "set-quota", full, "max_objects", "1")
	for deadline := time.Now().Add(time.Minute); !strings.Contains(ceph.Run(t, "ceph", "osd", "pool", "ls", "detail"), "full_quota"); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatal("the pool does not become full")
		}
	}
	another := spec
	another.Name = "new"
	if _, err := images.Ensure(t.Context(), cluster, another); !errors.Is(err, rbdutil.ErrNoSpace) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrNoSpace)
	}
	if err := images.Delete(t.Context(), cluster, spec.ImageRef, expectationOf(spec)); err != nil {
		t.Errorf("an image in a full pool cannot be deleted: %v", err)
	}
}
