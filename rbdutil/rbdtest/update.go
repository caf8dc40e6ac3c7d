package rbdtest

import (
	"strings"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// recordOf returns a record with all fields that an image in use may have.
func recordOf(ref rbdutil.ImageRef) rbdutil.Record {
	owner := specOf(ref).Owner
	owner.ClaimName = `ünï ☃ "quoted"`
	return rbdutil.Record{
		Owner: owner, Size: 8 * rbdutil.MiB, Flatten: true,
		Source: &rbdutil.RecordedSource{
			SourceVolume: rbdutil.SourceVolume{VolumeName: "pvc-0", FSType: "xfs", FSSize: 1 << 30},
			SnapshotRef:  rbdutil.SnapshotRef{Pool: ref.Pool, ImageID: "1e7f", Name: "before"},
			Size:         1 << 30,
		},
	}
}

func updateSets(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	record := recordOf(ref)
	// The caller does not know the id of a new image.
	must(t, h.Store.Update(ctxOf(t), h.Cluster, rbdutil.Image{ImageRef: ref}, &record, 5*rbdutil.MiB))
	for range 2 {
		img := get(t, h, ref)
		equal(t, record, recordIn(t, img))
		equal(t, 5*rbdutil.MiB, img.Size)
		update(t, h, ref, &record, 5*rbdutil.MiB)
	}
	update(t, h, ref, nil, 6*rbdutil.MiB)
	equal(t, record, recordIn(t, get(t, h, ref)))
	record = rbdutil.Record{Owner: record.Owner}
	update(t, h, ref, &record, 6*rbdutil.MiB)
	equal(t, record, recordIn(t, get(t, h, ref)))
}

func updateNeverShrinks(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	update(t, h, ref, nil, 5*rbdutil.MiB)
	before, record := see(t, h, ref), recordOf(ref)
	wantErr(t, h.Store.Update(ctxOf(t), h.Cluster, before, &record, 4*rbdutil.MiB), rbdutil.ErrInvalid)
	equal(t, before, see(t, h, ref))
}

func updateMissing(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	wantErr(t, h.Store.Update(ctxOf(t), h.Cluster, rbdutil.Image{ImageRef: ref}, nil, rbdutil.MiB), rbdutil.ErrImageNotFound)
	ref.Pool = "no-such-pool"
	wantErr(t, h.Store.Update(ctxOf(t), h.Cluster, rbdutil.Image{ImageRef: ref}, nil, rbdutil.MiB), rbdutil.ErrPoolNotFound)
}

func updateLocked(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	for suffix, features := range map[string]rbdutil.Features{
		"-plain":     rbdutil.Layering,
		"-exclusive": rbdutil.Layering | rbdutil.ExclusiveLock,
	} {
		ref := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + suffix}
		must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, rbdutil.Layout{Features: features}))
		update(t, h, ref, nil, 5*rbdutil.MiB)
		h.Lock(t, ref)
		before, record := see(t, h, ref), recordOf(ref)
		err := h.Store.Update(ctxOf(t), h.Cluster, before, &record, 6*rbdutil.MiB)
		wantErr(t, err, rbdutil.ErrLocked)
		if want := "by maintenance client."; !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		equal(t, before, see(t, h, ref))
	}
}

// changedSinceSeen changes an image after it was seen. The store then refuses its own change.
func changedSinceSeen(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	for name, change := range map[string]func(t *testing.T, ref rbdutil.ImageRef){
		"id": func(t *testing.T, ref rbdutil.ImageRef) {
			was := see(t, h, ref)
			h.TrashByHand(t, ref)
			must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
			update(t, h, ref, &was.Record, was.Size)
		},
		"record": func(t *testing.T, ref rbdutil.ImageRef) {
			record := recordOf(ref)
			record.VolumeName = "pvc-another"
			update(t, h, ref, &record, 8*rbdutil.MiB)
		},
		"record, to one that cannot be parsed": func(t *testing.T, ref rbdutil.ImageRef) { h.SetRecord(t, ref, "{") },
		"size":                                 func(t *testing.T, ref rbdutil.ImageRef) { update(t, h, ref, nil, 9*rbdutil.MiB) },
	} {
		t.Run(name, func(t *testing.T) {
			ref := rbdutil.ImageRef{Pool: ref.Pool, Name: uniqueName(t)}
			must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
			record := recordOf(ref)
			update(t, h, ref, &record, 8*rbdutil.MiB)
			seen := see(t, h, ref)
			change(t, ref)
			before := see(t, h, ref)
			wantErr(t, h.Store.Update(ctxOf(t), h.Cluster, seen, &rbdutil.Record{}, 10*rbdutil.MiB), rbdutil.ErrChanged)
			wantErr(t, h.Store.MoveToTrash(ctxOf(t), h.Cluster, seen, deleted(seen.Record), 0), rbdutil.ErrChanged)
			wantSame(t, before, see(t, h, ref))
		})
	}
}

func recordUnreadable(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	for _, text := range []string{"not JSON", `{"ofALaterVersion":true}`, "{} {}"} {
		h.SetRecord(t, ref, text)
		img := see(t, h, ref)
		if img.RecordError == nil {
			t.Errorf("the record %q is parsed as %s", text, img.Record.Encode())
		}
		equal(t, rbdutil.Record{}, img.Record)
	}
	h.TrashByHand(t, ref)
	trashed := trashedAs(t, h, ref)
	_, err := h.Store.GetTrashed(ctxOf(t), h.Cluster, ref.Pool, trashed)
	wantErr(t, err, rbdutil.ErrForeignImage)
	wantErr(t, h.Store.RemoveFromTrash(ctxOf(t), h.Cluster, ref.Pool, trashed, maker), rbdutil.ErrForeignImage)
	// Restore does not change the record.
	must(t, h.Store.Restore(ctxOf(t), h.Cluster, ref.Pool, trashed))
	if see(t, h, ref).RecordError == nil {
		t.Error("the record that could not be parsed was removed")
	}
}

// recordIn checks the image id in the record of an image, and returns the record without it.
func recordIn(t *testing.T, img rbdutil.Image) rbdutil.Record {
	t.Helper()
	if img.ID != "" && img.Record.ImageID != img.ID {
		t.Errorf("the record of image %s names image %q", img.ID, img.Record.ImageID)
	}
	return withoutID(img.Record)
}

func withoutID(record rbdutil.Record) rbdutil.Record {
	record.ImageID = ""
	return record
}

// cloneHasRecord checks that Ceph copies the record of the source into a clone.
func cloneHasRecord(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	record := recordOf(ref)
	update(t, h, ref, &record, 8*rbdutil.MiB)
	must(t, h.Store.CreateSnapshot(ctxOf(t), h.Cluster, ref, "one"))
	clone := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-clone"}
	must(t, h.Store.Clone(ctxOf(t), h.Cluster, ref, "one", clone, plain))
	img := see(t, h, clone)
	equal(t, record, withoutID(img.Record))
	if img.Record.ImageID != img.Parent.ImageID {
		t.Errorf("the record copied from image %s names image %q", img.Parent.ImageID, img.Record.ImageID)
	}
	own := rbdutil.Record{Owner: rbdutil.Owner{ClaimUID: "another"}}
	must(t, h.Store.Update(ctxOf(t), h.Cluster, img, &own, 9*rbdutil.MiB))
	equal(t, own, recordIn(t, get(t, h, clone)))
	equal(t, record, recordIn(t, get(t, h, ref)))
}

// wantSame checks that an image is unchanged. Record errors differ only by their address.
func wantSame(t *testing.T, want, got rbdutil.Image) {
	t.Helper()
	if (want.RecordError == nil) != (got.RecordError == nil) {
		t.Errorf("record error %v, want %v", got.RecordError, want.RecordError)
	}
	want.RecordError, got.RecordError = nil, nil
	equal(t, want, got)
}
