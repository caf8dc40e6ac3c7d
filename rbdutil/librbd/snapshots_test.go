//go:build ceph

package librbd_test

import (
	"errors"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// TestASnapshotIsNotCreatedDuringItsRemoval creates and removes a snapshot at the same time, as
// happens when a clone is created again while its earlier attempt is removed from the trash.
func TestASnapshotIsNotCreatedDuringItsRemoval(t *testing.T) {
	t.Parallel()
	s := newTrashTest(t, "created-and-removed", rbdutil.Layering)
	const name = "rbd-provisioner-for-one"
	snapshot := rbdutil.SnapshotRef{Pool: s.ref.Pool, ImageID: s.see(t).ID, Name: name}
	create := func() error { return s.store.CreateSnapshot(t.Context(), s.cluster, s.ref, name) }
	remove := func() error { return s.store.RemoveSnapshot(t.Context(), s.cluster, snapshot) }
	for range 20 {
		if err := create(); err != nil {
			t.Fatal(err)
		}
		created := make(chan error, 1)
		go func() { created <- create() }()
		err := errors.Join(remove(), <-created)
		if err != nil && !errors.Is(err, rbdutil.ErrInProgress) {
			t.Fatal(err)
		}
		if err := remove(); err != nil {
			t.Fatalf("the snapshot cannot be removed any more: %v\n%s", err, s.ceph.Run(t, "rbd", "snap", "ls", "--all", s.ref.String()))
		}
		if err != nil {
			return
		}
	}
	t.Error("the creation was never refused during the removal, or the removal during the creation")
}
