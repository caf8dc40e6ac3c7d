//go:build ceph

package librbd_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest/cephcli"
)

// TestAFullPoolIsReportedAndAllowsDeletion: by default, Ceph's client waits for space, and the
// requests that free space wait as well.
func TestAFullPoolIsReportedAndAllowsDeletion(t *testing.T) {
	t.Parallel()
	const full = "full"
	ceph, cluster := newClusterWith(t, full)
	store := newStore(t, librbd.Options{Timeout: 10 * time.Second})
	images := rbdutil.NewImages(store)
	specOf := func(name string) rbdutil.ImageSpec {
		return rbdutil.ImageSpec{
			ImageRef: rbdutil.ImageRef{Pool: full, Name: name}, Layout: rbdutil.Layout{Features: rbdutil.Layering},
			Size: rbdutil.MiB, Owner: rbdutil.Owner{ClaimUID: name, VolumeName: "pvc-" + name},
		}
	}
	remove := func(spec rbdutil.ImageSpec) error {
		return images.Delete(t.Context(), cluster, spec.ImageRef, preconditionOf(spec), 0)
	}
	for _, name := range []string{"first", "old"} {
		if _, err := images.Ensure(t.Context(), cluster, specOf(name)); err != nil {
			t.Fatal(err)
		}
	}
	// Ceph removes images by the pool's trash, which it creates on first use.
	if err := remove(specOf("first")); err != nil {
		t.Fatal(err)
	}
	setQuota(t, ceph, full, "1")
	if _, err := images.Ensure(t.Context(), cluster, specOf("new")); !errors.Is(err, rbdutil.ErrNoSpace) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrNoSpace)
	}
	if err := remove(specOf("old")); err != nil {
		t.Errorf("delete an image in a full pool: %v", err)
	}
	if left := ceph.Images(t, full); len(left) > 0 {
		t.Errorf("images %q remain", left)
	}
}

// TestDeletionFailsInAFullPoolWithoutATrash: without space to create a trash, Ceph returns
// ENOENT for the removal of an existing image.
func TestDeletionFailsInAFullPoolWithoutATrash(t *testing.T) {
	t.Parallel()
	const full = "full-without-trash"
	ceph, cluster := newClusterWith(t, full)
	images := rbdutil.NewImages(newStore(t, librbd.Options{Timeout: 10 * time.Second}))
	spec := rbdutil.ImageSpec{
		ImageRef: rbdutil.ImageRef{Pool: full, Name: "old"}, Layout: rbdutil.Layout{Features: rbdutil.Layering},
		Size: rbdutil.MiB, Owner: rbdutil.Owner{ClaimUID: "1", VolumeName: "pvc-1"},
	}
	if _, err := images.Ensure(t.Context(), cluster, spec); err != nil {
		t.Fatal(err)
	}
	setQuota(t, ceph, full, "1")
	err := images.Delete(t.Context(), cluster, spec.ImageRef, preconditionOf(spec), 0)
	if left := ceph.Images(t, full); (err == nil) != (len(left) == 0) {
		t.Errorf("error %v, images %q remain", err, left)
	}
	t.Log(err)
	setQuota(t, ceph, full, "0")
	if err := images.Delete(t.Context(), cluster, spec.ImageRef, preconditionOf(spec), 0); err != nil {
		t.Error(err)
	}
	if left := ceph.Images(t, full); len(left) > 0 {
		t.Errorf("images %q remain", left)
	}
}

// setQuota sets the maximum number of objects in the pool, and waits until it is effective.
func setQuota(t *testing.T, ceph cephcli.Admin, pool, objects string) {
	t.Helper()
	ceph.Run(t, "ceph", "osd", "pool", "set-quota", pool, "max_objects", objects)
	full := objects != "0"
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		for _, line := range strings.Split(ceph.Run(t, "ceph", "osd", "pool", "ls", "detail"), "\n") {
			if strings.Contains(line, "'"+pool+"'") && strings.Contains(line, "full_quota") == full {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("pool %s does not become full: %t", pool, full)
		}
	}
}
