package rbdtest

import (
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

const mark = rbdutil.Mark("ceph.com/rbd in here")

// trashedAs returns the image in the trash that had the name, or none.
func trashedAs(t *testing.T, h Harness, ref rbdutil.ImageRef) rbdutil.TrashedImage {
	t.Helper()
	trashed, err := h.Store.Trashed(ctxOf(t), h.Cluster, ref.Pool)
	must(t, err)
	for _, img := range trashed {
		if img.Name == ref.Name {
			return img
		}
	}
	return rbdutil.TrashedImage{}
}

func trashAndPurge(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	must(t, h.Store.Complete(ctxOf(t), h.Cluster, ref, nil, 8*rbdutil.MiB))
	h.Write(t, ref)
	must(t, h.Store.Trash(ctxOf(t), h.Cluster, ref, mark))
	_, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
	wantErr(t, err, rbdutil.ErrImageNotFound)
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain)) // the name is free
	trashed := trashedAs(t, h, ref)
	wantErr(t, h.Store.Purge(ctxOf(t), h.Cluster, ref.Pool, trashed, "ceph.com/rbd elsewhere"), rbdutil.ErrNotOurs)
	must(t, h.Store.Purge(ctxOf(t), h.Cluster, ref.Pool, trashed, mark))
	equal(t, rbdutil.TrashedImage{}, trashedAs(t, h, ref))
	get(t, h, ref) // the new one is not the old one
}

func trashInUse(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	defer h.Watch(t, ref)()
	wantErr(t, h.Store.Trash(ctxOf(t), h.Cluster, ref, mark), rbdutil.ErrImageInUse)
	get(t, h, ref)
}

func trashGrouped(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	h.Group(t, ref)
	wantErr(t, h.Store.Trash(ctxOf(t), h.Cluster, ref, mark), rbdutil.ErrInGroup)
	get(t, h, ref)
}

func trashMissing(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	wantErr(t, h.Store.Trash(ctxOf(t), h.Cluster, ref, mark), rbdutil.ErrImageNotFound)
	ref.Pool = "no-such-pool"
	wantErr(t, h.Store.Trash(ctxOf(t), h.Cluster, ref, mark), rbdutil.ErrPoolNotFound)
	_, err := h.Store.Trashed(ctxOf(t), h.Cluster, ref.Pool)
	wantErr(t, err, rbdutil.ErrPoolNotFound)
}

func purgeMissing(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	wantErr(t, h.Store.Purge(ctxOf(t), h.Cluster, ref.Pool, rbdutil.TrashedImage{ID: "1e7f1e7f1e7f", Name: ref.Name}, mark), rbdutil.ErrImageNotFound)
}

func purgeSnapshots(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	h.Snapshot(t, ref, "keep")
	must(t, h.Store.Trash(ctxOf(t), h.Cluster, ref, mark))
	wantErr(t, h.Store.Purge(ctxOf(t), h.Cluster, ref.Pool, trashedAs(t, h, ref), mark), rbdutil.ErrHasSnapshots)
}

func purgeDeleted(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	must(t, images.Delete(ctxOf(t), h.Cluster, ref, expectationOf(spec)))
	// Somebody has put another one there, and may want it back.
	kept := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-kept"}
	must(t, h.Store.Create(ctxOf(t), h.Cluster, kept, plain))
	must(t, h.Store.Trash(ctxOf(t), h.Cluster, kept, "somebody who may want it back"))
	purge := func(prefix string, owner rbdutil.Owner) {
		t.Helper()
		_, err := images.Purge(ctxOf(t), h.Cluster, ref.Pool, prefix, owner)
		must(t, err)
	}
	purge("another", spec.Owner)
	elsewhere := spec.Owner
	elsewhere.ClusterID = "elsewhere"
	purge(ref.Name, elsewhere)
	if trashedAs(t, h, ref).ID == "" {
		t.Error("it was purged for somebody else")
	}
	purge(ref.Name, spec.Owner)
	if trashedAs(t, h, ref).ID != "" {
		t.Error("it is still in the trash")
	}
	if trashedAs(t, h, kept).ID == "" {
		t.Error("what somebody else has put into the trash was purged")
	}
}
