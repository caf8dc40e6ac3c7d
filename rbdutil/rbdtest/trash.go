package rbdtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// maker is the owner that moves images to the trash here.
var maker = rbdutil.Owner{Provisioner: "ceph.com/rbd", ClusterID: "here"}

// deleted returns the record of an image that the maker deletes now.
func deleted(record rbdutil.Record) rbdutil.Record {
	return record.WithDeletion(maker, rbdutil.Deletion{Time: time.Now()})
}

// moveToTrash moves the current image to the trash.
func moveToTrash(t *testing.T, h Harness, ref rbdutil.ImageRef, keep time.Duration) error {
	t.Helper()
	img := see(t, h, ref)
	return h.Store.MoveToTrash(ctxOf(t), h.Cluster, img, deleted(img.Record), keep)
}

// trashedAs returns the entry of the image that had the name, or an empty one.
func trashedAs(t *testing.T, h Harness, ref rbdutil.ImageRef) rbdutil.TrashedImage {
	t.Helper()
	trashed, err := h.Store.ListTrash(ctxOf(t), h.Cluster, ref.Pool)
	must(t, err)
	for _, img := range trashed {
		if img.Name == ref.Name {
			return img
		}
	}
	return rbdutil.TrashedImage{}
}

// Trash is what EmptyTrash needs, of a Store or of Images.
type Trash interface {
	ListTrash(ctx context.Context, c rbdutil.Cluster, pool string) ([]rbdutil.TrashedImage, error)
	RemoveFromTrash(ctx context.Context, c rbdutil.Cluster, pool string, img rbdutil.TrashedImage, maker rbdutil.Owner) error
}

// EmptyTrash removes the images that the maker moved to the pool's trash, if their names have
// the prefix.
func EmptyTrash(ctx context.Context, trash Trash, c rbdutil.Cluster, prefix rbdutil.ImageRef, maker rbdutil.Owner) error {
	for {
		images, err := trash.ListTrash(ctx, c, prefix.Pool)
		if err != nil {
			return err
		}
		removed := 0
		var errs []error
		for _, img := range images {
			if !strings.HasPrefix(img.Name, prefix.Name) {
				continue
			}
			switch err := trash.RemoveFromTrash(ctx, c, prefix.Pool, img, maker); {
			case err == nil:
				removed++
			case errors.Is(err, rbdutil.ErrForeignImage), errors.Is(err, rbdutil.ErrImageNotFound),
				errors.Is(err, rbdutil.ErrInProgress), errors.Is(err, rbdutil.ErrHasClones):
			default:
				errs = append(errs, err)
			}
		}
		// A removed image may have been the last clone of another one.
		if removed == 0 || len(errs) > 0 {
			return errors.Join(errs...)
		}
	}
}

func trashAndRemove(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	record := recordOf(ref)
	update(t, h, ref, &record, 8*rbdutil.MiB)
	h.Write(t, ref)
	was := see(t, h, ref)
	record = deleted(record)
	must(t, h.Store.MoveToTrash(ctxOf(t), h.Cluster, was, record, 0))
	_, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
	wantErr(t, err, rbdutil.ErrImageNotFound)
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain)) // the name is free
	trashed := trashedAs(t, h, ref)
	equal(t, was.ID, trashed.ID)
	if age := time.Since(trashed.Trashed).Abs(); age > time.Minute || trashed.KeepUntil.After(time.Now()) || trashed.Migrating {
		t.Errorf("the entry is %+v", trashed)
	}
	got, err := h.Store.GetTrashed(ctxOf(t), h.Cluster, ref.Pool, trashed)
	must(t, err)
	equal(t, record, got)
	for _, other := range []rbdutil.Owner{{Provisioner: maker.Provisioner, ClusterID: "elsewhere"}, {Provisioner: "another", ClusterID: maker.ClusterID}} {
		wantErr(t, h.Store.RemoveFromTrash(ctxOf(t), h.Cluster, ref.Pool, trashed, other), rbdutil.ErrForeignImage)
	}
	must(t, h.Store.RemoveFromTrash(ctxOf(t), h.Cluster, ref.Pool, trashed, maker))
	equal(t, rbdutil.TrashedImage{}, trashedAs(t, h, ref))
	_, err = h.Store.GetTrashed(ctxOf(t), h.Cluster, ref.Pool, trashed)
	wantErr(t, err, rbdutil.ErrImageNotFound)
	get(t, h, ref) // the new image of that name
}

// trashWithHolders has an image with each kind of holder. It is not changed.
func trashWithHolders(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	for name, test := range map[string]struct {
		hold func(t *testing.T, ref rbdutil.ImageRef)
		want error
		says string
	}{
		"watcher":  {func(t *testing.T, ref rbdutil.ImageRef) { t.Cleanup(h.Watch(t, ref)) }, rbdutil.ErrImageInUse, "is mapped or open at "},
		"lock":     {h.Lock, rbdutil.ErrLocked, "by maintenance client."},
		"group":    {h.Group, rbdutil.ErrInGroup, "-group"},
		"mirror":   {h.Mirror, rbdutil.ErrMirrored, ref.Pool},
		"snapshot": {func(t *testing.T, ref rbdutil.ImageRef) { h.Snapshot(t, ref, "monday") }, rbdutil.ErrHasSnapshots, "has monday"},
		"clone": {func(t *testing.T, ref rbdutil.ImageRef) {
			h.Snapshot(t, ref, "base")
			h.Clone(t, ref, "base", rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-clone"})
		}, rbdutil.ErrHasSnapshots, "has base with the clones REF-clone"},
	} {
		t.Run(name, func(t *testing.T) {
			for suffix, features := range map[string]rbdutil.Features{
				"": rbdutil.Layering, "-exclusive": rbdutil.Layering | rbdutil.ExclusiveLock,
			} {
				ref := rbdutil.ImageRef{Pool: ref.Pool, Name: uniqueName(t) + suffix}
				must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, rbdutil.Layout{Features: features}))
				record := recordOf(ref)
				update(t, h, ref, &record, 8*rbdutil.MiB)
				test.hold(t, ref)
				before := see(t, h, ref)
				err := moveToTrash(t, h, ref, time.Hour)
				wantErr(t, err, test.want)
				says := strings.ReplaceAll(test.says, "REF", ref.String())
				if !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), ref.String()) {
					t.Errorf("error %v, want one with %q and %q", err, ref, says)
				}
				equal(t, before, see(t, h, ref))
				equal(t, rbdutil.TrashedImage{}, trashedAs(t, h, ref))
			}
		})
	}
}

func trashMissing(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	wantErr(t, h.Store.MoveToTrash(ctxOf(t), h.Cluster, rbdutil.Image{ImageRef: ref}, deleted(rbdutil.Record{}), 0), rbdutil.ErrImageNotFound)
	ref.Pool = "no-such-pool"
	wantErr(t, h.Store.MoveToTrash(ctxOf(t), h.Cluster, rbdutil.Image{ImageRef: ref}, deleted(rbdutil.Record{}), 0), rbdutil.ErrPoolNotFound)
	_, err := h.Store.ListTrash(ctxOf(t), h.Cluster, ref.Pool)
	wantErr(t, err, rbdutil.ErrPoolNotFound)
}

func trashKeeps(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	const keep = 2 * time.Second
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	start := time.Now()
	must(t, moveToTrash(t, h, ref, keep-time.Second/2)) // rounded up
	trashed := trashedAs(t, h, ref)
	if kept := trashed.KeepUntil.Sub(trashed.Trashed); kept != keep && kept != keep-time.Second/2 {
		t.Errorf("the image is kept for %s, from %s until %s", kept, trashed.Trashed, trashed.KeepUntil)
	}
	remove := func() error {
		return h.Store.RemoveFromTrash(ctxOf(t), h.Cluster, ref.Pool, trashed, maker)
	}
	wantErr(t, remove(), rbdutil.ErrNotExpired)
	equal(t, trashed, trashedAs(t, h, ref))
	err := remove()
	for ; errors.Is(err, rbdutil.ErrNotExpired) && time.Since(start) < timeout; err = remove() {
		time.Sleep(100 * time.Millisecond)
	}
	must(t, err)
	if after := time.Since(start); after < keep-time.Second/2 {
		t.Errorf("the image was removed after %s already", after)
	}
	equal(t, rbdutil.TrashedImage{}, trashedAs(t, h, ref))
}

// trashOfOthers has images that an administrator moved to the trash, and may restore.
func trashOfOthers(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	old := recordOf(ref).WithDeletion(maker, rbdutil.Deletion{Time: time.Now().Add(-10 * time.Minute)})
	inUse := recordOf(ref)
	for name, record := range map[string]*rbdutil.Record{
		"an image without a record":                nil,
		"an image of ours":                         &inUse,
		"an image that we failed to delete before": &old,
	} {
		t.Run(name, func(t *testing.T) {
			ref := rbdutil.ImageRef{Pool: ref.Pool, Name: uniqueName(t)}
			must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
			update(t, h, ref, record, 8*rbdutil.MiB)
			h.TrashByHand(t, ref)
			trashed := trashedAs(t, h, ref)
			got, err := h.Store.GetTrashed(ctxOf(t), h.Cluster, ref.Pool, trashed)
			if record == nil {
				wantErr(t, err, rbdutil.ErrForeignImage)
			} else {
				must(t, err)
				equal(t, *record, withoutID(got))
			}
			wantErr(t, h.Store.RemoveFromTrash(ctxOf(t), h.Cluster, ref.Pool, trashed, maker), rbdutil.ErrForeignImage)
			equal(t, trashed, trashedAs(t, h, ref))
		})
	}
}

// trashFinishedLater has records of interrupted moves that are completed later: the entry has
// the time of the first or of the second part.
func trashFinishedLater(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	now := time.Now().UTC().Truncate(time.Second)
	before, after := now.Add(-10*time.Minute), now.Add(10*time.Minute)
	for name, d := range map[string]rbdutil.Deletion{
		"first part":  {Time: after, Began: &now},
		"second part": {Time: now, Began: &before},
	} {
		t.Run(name, func(t *testing.T) {
			ref := rbdutil.ImageRef{Pool: ref.Pool, Name: uniqueName(t)}
			must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
			record := recordOf(ref).WithDeletion(maker, d)
			update(t, h, ref, &record, 8*rbdutil.MiB)
			h.TrashByHand(t, ref)
			must(t, h.Store.RemoveFromTrash(ctxOf(t), h.Cluster, ref.Pool, trashedAs(t, h, ref), maker))
			equal(t, rbdutil.TrashedImage{}, trashedAs(t, h, ref))
		})
	}
}

func removeMissing(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	missing := rbdutil.TrashedImage{ID: "1e7f1e7f1e7f", Name: ref.Name}
	wantErr(t, h.Store.RemoveFromTrash(ctxOf(t), h.Cluster, ref.Pool, missing, maker), rbdutil.ErrImageNotFound)
	wantErr(t, h.Store.Restore(ctxOf(t), h.Cluster, ref.Pool, missing), rbdutil.ErrImageNotFound)
	_, err := h.Store.GetTrashed(ctxOf(t), h.Cluster, ref.Pool, missing)
	wantErr(t, err, rbdutil.ErrImageNotFound)
}

func removeWithSnapshots(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	h.Snapshot(t, ref, "keep")
	record := deleted(recordOf(ref))
	update(t, h, ref, &record, 8*rbdutil.MiB)
	h.TrashByHand(t, ref)
	wantErr(t, h.Store.RemoveFromTrash(ctxOf(t), h.Cluster, ref.Pool, trashedAs(t, h, ref), maker), rbdutil.ErrHasSnapshots)
}

func removeDeleted(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	must(t, images.Delete(ctxOf(t), h.Cluster, ref, preconditionOf(spec), 0))
	// An administrator moved another image there, and may restore it.
	kept := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-kept"}
	must(t, h.Store.Create(ctxOf(t), h.Cluster, kept, plain))
	h.TrashByHand(t, kept)
	elsewhere := spec.Owner
	elsewhere.ClusterID = "elsewhere"
	must(t, EmptyTrash(ctxOf(t), images, h.Cluster, ref, elsewhere))
	if trashedAs(t, h, ref).ID == "" {
		t.Error("the image was removed by another maker")
	}
	must(t, EmptyTrash(ctxOf(t), images, h.Cluster, ref, spec.Owner))
	if trashedAs(t, h, ref).ID != "" {
		t.Error("the image is still in the trash")
	}
	if trashedAs(t, h, kept).ID == "" {
		t.Error("the image of the administrator was removed")
	}
}
