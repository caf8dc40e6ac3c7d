package rbdtest

import (
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func restoreImage(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	record := recordOf(ref)
	update(t, h, ref, &record, 8*rbdutil.MiB)
	h.Write(t, ref)
	before := see(t, h, ref)
	for _, keep := range []time.Duration{0, time.Hour} {
		must(t, moveToTrash(t, h, ref, keep))
		trashed := trashedAs(t, h, ref)
		must(t, h.Store.Restore(ctxOf(t), h.Cluster, ref.Pool, trashed))
		equal(t, before, see(t, h, ref))
		equal(t, rbdutil.TrashedImage{}, trashedAs(t, h, ref))
		wantErr(t, h.Store.Restore(ctxOf(t), h.Cluster, ref.Pool, trashed), rbdutil.ErrImageNotFound)
	}
	written, err := h.Store.HasChanges(ctxOf(t), h.Cluster, ref, "")
	must(t, err)
	if !written {
		t.Error("the data is lost")
	}
}

func restoreTaken(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	must(t, moveToTrash(t, h, ref, 0))
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	before, trashed := see(t, h, ref), trashedAs(t, h, ref)
	record, err := h.Store.GetTrashed(ctxOf(t), h.Cluster, ref.Pool, trashed)
	must(t, err)
	wantErr(t, h.Store.Restore(ctxOf(t), h.Cluster, ref.Pool, trashed), rbdutil.ErrImageExists)
	equal(t, before, see(t, h, ref))
	equal(t, trashed, trashedAs(t, h, ref))
	got, err := h.Store.GetTrashed(ctxOf(t), h.Cluster, ref.Pool, trashed)
	must(t, err)
	equal(t, record, got)
}

func restoreRecordless(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	update(t, h, ref, nil, 8*rbdutil.MiB)
	before := see(t, h, ref)
	must(t, moveToTrash(t, h, ref, time.Hour))
	must(t, h.Store.Restore(ctxOf(t), h.Cluster, ref.Pool, trashedAs(t, h, ref)))
	equal(t, before, see(t, h, ref))
}

// migrationStays prepares a migration: the source is in the trash, and the target needs its
// data.
func migrationStays(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	record := recordOf(ref)
	update(t, h, ref, &record, 8*rbdutil.MiB)
	source := see(t, h, ref)
	to := h.Migrate(t, ref)
	_, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
	wantErr(t, err, rbdutil.ErrImageNotFound)
	trashed := trashedAs(t, h, ref)
	if trashed.ID != source.ID || !trashed.Migrating {
		t.Errorf("the entry of the source is %+v", trashed)
	}
	wantErr(t, h.Store.RemoveFromTrash(ctxOf(t), h.Cluster, ref.Pool, trashed, maker), rbdutil.ErrForeignImage)
	wantErr(t, h.Store.Restore(ctxOf(t), h.Cluster, ref.Pool, trashed), rbdutil.ErrMigrating)
	equal(t, trashed, trashedAs(t, h, ref))

	before := see(t, h, to)
	equal(t, record, withoutID(before.Record))
	wantErr(t, moveToTrash(t, h, to, 0), rbdutil.ErrMigrating)
	equal(t, before, see(t, h, to))
}
