package rbdtest

import (
	"slices"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func listNames(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	names, err := h.Store.List(ctxOf(t), h.Cluster, ref.Pool)
	must(t, err)
	if !slices.Contains(names, ref.Name) {
		t.Errorf("%s is not among %q", ref.Name, names)
	}
	must(t, moveToTrash(t, h, ref, 0))
	names, err = h.Store.List(ctxOf(t), h.Cluster, ref.Pool)
	must(t, err)
	if slices.Contains(names, ref.Name) {
		t.Errorf("%s is among %q after it was removed", ref.Name, names)
	}
}

func listMissing(t *testing.T, h Harness, _ rbdutil.ImageRef) {
	_, err := h.Store.List(ctxOf(t), h.Cluster, "no-such-pool")
	wantErr(t, err, rbdutil.ErrPoolNotFound)
}

func hasChangesReports(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	for _, size := range []uint64{0, 64 * rbdutil.MiB} {
		update(t, h, ref, nil, size)
		written, err := h.Store.HasChanges(ctxOf(t), h.Cluster, ref, "")
		must(t, err)
		if written {
			t.Errorf("HasChanges reports true for an image of %d bytes without data", size)
		}
	}
	h.Write(t, ref)
	written, err := h.Store.HasChanges(ctxOf(t), h.Cluster, ref, "")
	must(t, err)
	if !written {
		t.Error("HasChanges reports false after a write")
	}
}

func hasChangesMissing(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	_, err := h.Store.HasChanges(ctxOf(t), h.Cluster, ref, "")
	wantErr(t, err, rbdutil.ErrImageNotFound)
}

func removeOrphans(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, owner := rbdutil.NewImages(h.Store), specOf(ref).Owner
	removed := func(name string, ref rbdutil.ImageRef) {
		t.Helper()
		for range 2 {
			if err := images.RemoveOrphan(ctxOf(t), h.Cluster, ref, owner); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		_, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
		wantErr(t, err, rbdutil.ErrImageNotFound)
		must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain)) // the name is free
	}
	complete := specOf(ref)
	complete.Name += "-complete"
	_, err := images.Ensure(ctxOf(t), h.Cluster, complete)
	must(t, err)
	removed("a complete image", complete.ImageRef)

	unrecorded := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-unrecorded"}
	must(t, h.Store.Create(ctxOf(t), h.Cluster, unrecorded, plain))
	removed("an image without a record", unrecorded)

	sizeless := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-sizeless"}
	must(t, h.Store.Create(ctxOf(t), h.Cluster, sizeless, plain))
	update(t, h, sizeless, &rbdutil.Record{Owner: owner, Size: rbdutil.MiB}, 0)
	removed("an image with a record and without a size", sizeless)

	partial := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-partial"}
	h.LeavePartial(t, partial)
	removed("a partial image", partial)
}

func keepNonOrphans(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	for name, change := range map[string]func(*rbdutil.Owner){
		"another claim":       func(o *rbdutil.Owner) { o.ClaimUID = "another" },
		"another cluster":     func(o *rbdutil.Owner) { o.ClusterID = "elsewhere" },
		"another provisioner": func(o *rbdutil.Owner) { o.Provisioner = "example.com/rbd" },
	} {
		owner := spec.Owner
		change(&owner)
		if err := images.RemoveOrphan(ctxOf(t), h.Cluster, ref, owner); err == nil {
			t.Errorf("the image of %s was removed", name)
		} else {
			wantErr(t, err, rbdutil.ErrForeignImage)
		}
	}
	stop := h.Watch(t, ref)
	wantErr(t, images.RemoveOrphan(ctxOf(t), h.Cluster, ref, spec.Owner), rbdutil.ErrImageInUse)
	stop()
	h.Write(t, ref)
	wantErr(t, images.RemoveOrphan(ctxOf(t), h.Cluster, ref, spec.Owner), rbdutil.ErrNotEmpty)
	h.Snapshot(t, ref, "keep")
	wantErr(t, images.RemoveOrphan(ctxOf(t), h.Cluster, ref, spec.Owner), rbdutil.ErrHasSnapshots)

	foreign := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-foreign"}
	must(t, h.Store.Create(ctxOf(t), h.Cluster, foreign, plain))
	update(t, h, foreign, nil, rbdutil.MiB)
	wantErr(t, images.RemoveOrphan(ctxOf(t), h.Cluster, foreign, spec.Owner), rbdutil.ErrForeignImage)

	ref.Pool = "no-such-pool"
	wantErr(t, images.RemoveOrphan(ctxOf(t), h.Cluster, ref, spec.Owner), rbdutil.ErrPoolNotFound)
}
