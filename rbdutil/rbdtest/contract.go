// Package rbdtest holds the contract of rbdutil.Store, and of rbdutil.Images over
// it, as a test that runs over the fake and over real Ceph alike.
package rbdtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Harness is a Ceph, real or not, on which the contract is tried.
type Harness struct {
	Store   rbdutil.Store
	Cluster rbdutil.Cluster
	// Pool is an RBD pool that the test may fill; DataPool one for data objects.
	Pool, DataPool string
	// Watch holds the image open as a node does that mounts it, until stopped.
	Watch func(t *testing.T, ref rbdutil.ImageRef) (stop func())
	// Write puts some data into the image, as a node does that has mounted it.
	Write func(t *testing.T, ref rbdutil.ImageRef)
	// Snapshot takes a snapshot of the image.
	Snapshot func(t *testing.T, ref rbdutil.ImageRef, name string)
	// Clone makes a clone of a snapshot.
	Clone func(t *testing.T, ref rbdutil.ImageRef, snapshot string, clone rbdutil.ImageRef)
	// Group makes the image the member of a group.
	Group func(t *testing.T, ref rbdutil.ImageRef)
	// Lock sets a lock on the image.
	Lock func(t *testing.T, ref rbdutil.ImageRef)
	// Mirror mirrors the image to another cluster.
	Mirror func(t *testing.T, ref rbdutil.ImageRef)
	// Migrate prepares the migration of the image to another name, and returns that name.
	Migrate func(t *testing.T, ref rbdutil.ImageRef) (to rbdutil.ImageRef)
	// TrashByHand moves the image to the trash as an administrator does.
	TrashByHand func(t *testing.T, ref rbdutil.ImageRef)
	// SetRecord sets the text of the image's record, as an administrator does.
	SetRecord func(t *testing.T, ref rbdutil.ImageRef, value string)
	// LeavePartial makes a name without an image behind it, as a client leaves it
	// that dies in the middle of creating or removing.
	LeavePartial func(t *testing.T, ref rbdutil.ImageRef)
}

// timeout bounds each case: real Ceph on a busy machine takes its time.
const timeout = 60 * time.Second

// Run runs the whole contract, each case on an image name of its own.
func Run(t *testing.T, h Harness) {
	for _, cases := range []map[string]testCase{storeCases(), imagesCases()} {
		for name, run := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // Ceph's monitors take up to a second for each snapshot
				run(t, h, rbdutil.ImageRef{Pool: h.Pool, Name: uniqueName(t)})
			})
		}
	}
}

// testCase is one row of the contract, on an image name of its own.
type testCase func(t *testing.T, h Harness, ref rbdutil.ImageRef)

// storeCases are about rbdutil.Store.
func storeCases() map[string]testCase {
	return map[string]testCase{
		"create makes an empty image of the layout asked for":           createMakesLayout,
		"create puts data objects into the data pool":                   createWithDataPool,
		"create names the pool that is missing":                         createMissingPool,
		"create names the data pool that is missing":                    createMissingDataPool,
		"create refuses a name that is taken":                           createTaken,
		"get names what is missing":                                     getMissing,
		"get shows watchers and snapshots":                              getShowsHolders,
		"update: record and size are set, and again nothing changes":    updateSets,
		"update: an image never shrinks":                                updateNeverShrinks,
		"update: a missing image or pool is named":                      updateMissing,
		"update: an image with a lock is not resized":                   updateLocked,
		"a change is made only to the image that was seen":              changedSinceSeen,
		"a record that cannot be parsed is not taken for none":          recordUnreadable,
		"a clone has the record of its source at first":                 cloneHasRecord,
		"clones are shown, and named when one deletes what they are of": clonesShown,
		"remains are not an image, take the name, and can go":           remains,
		"trash: an image has no name there, and its maker removes it":   trashAndRemove,
		"trash: an image that somebody holds is not moved there":        trashHeld,
		"trash: a missing image or pool is named":                       trashMissing,
		"trash: an image is kept for the time asked for":                trashKeeps,
		"trash: images that others have moved there stay":               trashOfOthers,
		"trash: a move that is finished later is still its maker's":     trashFinishedLater,
		"trash: a missing entry is not found":                           removeMissing,
		"trash: an image with snapshots is not removed":                 removeSnapshots,
		"restore: name, data and record are as before":                  restoreBrings,
		"restore: a name that another image has is not taken":           restoreTaken,
		"restore: an image without a record has none again":             restoreRecordless,
		"migration: neither source nor target can be removed":           migrationStays,
		"list names the images of the pool":                             listNames,
		"list of a missing pool says so":                                listMissing,
		"written tells an empty image from one with data":               writtenTells,
		"written of a missing image says so":                            writtenMissing,
	}
}

// imagesCases are about rbdutil.Images.
func imagesCases() map[string]testCase {
	return map[string]testCase{
		"images: the trash is emptied for its maker only":                removeDeleted,
		"images: ensure twice is one image":                              ensureTwice,
		"images: ensure finishes what was cut short at any step":         ensureResumes,
		"images: ensure leaves somebody else's image alone":              ensureForeign,
		"images: ensure says how its own image does not fit":             ensureMismatch,
		"images: ensure replaces an unfinished image that misfits":       ensureReplacesUnfinished,
		"images: delete twice is success":                                deleteTwice,
		"images: delete takes remains away":                              deletePartial,
		"images: delete spares what is not the volume's":                 deleteForeign,
		"images: delete spares an image in use until it is free":         deleteInUse,
		"images: delete names the snapshots":                             deleteSnapshots,
		"images: delete in a missing pool is no success":                 deleteMissingPool,
		"images: reclaim takes away what became no volume":               reclaimTakesAway,
		"images: reclaim spares what may be somebody's":                  reclaimSpares,
		"images: a clone is made once, with a snapshot of its own":       cloneIsOne,
		"images: a clone may be larger than its source":                  cloneLarger,
		"images: a clone that cannot be is refused":                      cloneRefused,
		"images: a clone of a mounted image, or only of one that is not": cloneOfMounted,
		"images: a clone leaves somebody else's image alone":             cloneForeign,
		"images: a clone outlives its source, and both go in the end":    cloneOutlivesSource,
		"images: clones of clones are not deeper than bearable":          cloneDepth,
		"images: a source has no more snapshots than bearable":           cloneMany,
		"images: a clone is finished that was cut short at any step":     cloneResumes,
		"images: a clone that was cut short leaves nothing behind":       cloneReclaimed,
		"images: a clone that was a volume stays":                        cloneKept,
		"images: a clone of another cluster stays":                       cloneElsewhere,
		"images: snapshots that are of use stay":                         releaseSpares,
		"images: grow never shrinks, and only what is expected":          growOnly,
	}
}

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	return ctx
}

func createMakesLayout(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	layout := rbdutil.Layout{
		Features:   rbdutil.Layering | rbdutil.ExclusiveLock | rbdutil.ObjectMap | rbdutil.FastDiff,
		ObjectSize: 1 << 20,
	}
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, layout))
	want := rbdutil.Image{ImageRef: ref, Features: layout.Features, ObjectSize: layout.ObjectSize}
	equal(t, want, get(t, h, ref))
}

func createWithDataPool(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, rbdutil.Layout{Features: rbdutil.Layering, DataPool: h.DataPool}))
	got := get(t, h, ref).Features
	if got.String() != "layering,data-pool" || got.Requested() != rbdutil.Layering {
		t.Errorf("features %s, want layering,data-pool, of which layering was asked for", got)
	}
}

func createMissingPool(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	ref.Pool = "no-such-pool"
	wantErr(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain), rbdutil.ErrPoolNotFound)
}

func createMissingDataPool(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	layout := rbdutil.Layout{Features: rbdutil.Layering, DataPool: "no-such-pool"}
	wantErr(t, h.Store.Create(ctxOf(t), h.Cluster, ref, layout), rbdutil.ErrDataPoolNotFound)
	_, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
	wantErr(t, err, rbdutil.ErrImageNotFound)
}

func createTaken(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	wantErr(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain), rbdutil.ErrImageExists)
}

func getMissing(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	_, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
	wantErr(t, err, rbdutil.ErrImageNotFound)
	ref.Pool = "no-such-pool"
	_, err = h.Store.Get(ctxOf(t), h.Cluster, ref)
	wantErr(t, err, rbdutil.ErrPoolNotFound)
}

func getShowsHolders(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	h.Snapshot(t, ref, "before-upgrade")
	stop := h.Watch(t, ref)
	img := get(t, h, ref)
	equal(t, []string{"before-upgrade"}, img.Snapshots)
	if len(img.Watchers) != 1 || img.Watchers[0] == "" {
		t.Errorf("watchers %q, want the one address", img.Watchers)
	}
	stop()
	if img := get(t, h, ref); len(img.Watchers) != 0 {
		t.Errorf("watchers %q after the last is gone: looking at an image must not hold it", img.Watchers)
	}
}

func clonesShown(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	spec := specOf(ref)
	_, err := rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	h.Snapshot(t, ref, "base")
	clone := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-clone"}
	h.Clone(t, ref, "base", clone)
	equal(t, []string{clone.String()}, get(t, h, ref).Clones)
	err = rbdutil.NewImages(h.Store).Delete(ctxOf(t), h.Cluster, ref, preconditionOf(spec), 0)
	wantErr(t, err, rbdutil.ErrHasSnapshots)
	if want := ref.String() + " has base with the clones " + clone.String(); !strings.Contains(err.Error(), want) {
		t.Errorf("error %v does not say: %s", err, want)
	}
}

func remains(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	h.LeavePartial(t, ref)
	_, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
	wantErr(t, err, rbdutil.ErrImageNotFound)
	wantErr(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain), rbdutil.ErrImageExists)
	must(t, h.Store.RemovePartial(ctxOf(t), h.Cluster, ref))
	equal(t, rbdutil.TrashedImage{}, trashedAs(t, h, ref))
	wantErr(t, h.Store.RemovePartial(ctxOf(t), h.Cluster, ref), rbdutil.ErrImageNotFound)
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	wantErr(t, h.Store.RemovePartial(ctxOf(t), h.Cluster, ref), rbdutil.ErrImageExists)
	get(t, h, ref)
	ref.Pool = "no-such-pool"
	wantErr(t, h.Store.RemovePartial(ctxOf(t), h.Cluster, ref), rbdutil.ErrPoolNotFound)
}

var plain = rbdutil.Layout{Features: rbdutil.Layering}

// see returns an image as the store shows it.
func see(t *testing.T, h Harness, ref rbdutil.ImageRef) rbdutil.Image {
	t.Helper()
	img, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
	if err != nil {
		t.Fatal(err)
	}
	// None and empty are the same to everybody.
	for _, list := range []*[]string{&img.Watchers, &img.Snapshots, &img.Clones} {
		if len(*list) == 0 {
			*list = nil
		}
	}
	if img.ID == "" {
		t.Errorf("image %s has no id", ref)
	}
	return img
}

// get returns it without its id, which is Ceph's own choice.
func get(t *testing.T, h Harness, ref rbdutil.ImageRef) rbdutil.Image {
	t.Helper()
	img := see(t, h, ref)
	img.ID = ""
	return img
}

// update changes an image as it is.
func update(t *testing.T, h Harness, ref rbdutil.ImageRef, record *rbdutil.Record, size uint64) {
	t.Helper()
	must(t, h.Store.Update(ctxOf(t), h.Cluster, see(t, h, ref), record, size))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func equal(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
