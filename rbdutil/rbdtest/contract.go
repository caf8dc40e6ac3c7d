// Package rbdtest is the contract of rbdutil.Store, and of rbdutil.Images over it, as a
// test that runs on the fake and on Ceph.
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

// Harness is a Ceph cluster, or a fake, on which the contract is tested.
type Harness struct {
	Store   rbdutil.Store
	Cluster rbdutil.Cluster
	// Pool is an RBD pool for the test, DataPool one for data objects.
	Pool, DataPool string
	// Watch opens the image as a node that mounts it does, until stop is called.
	Watch func(t *testing.T, ref rbdutil.ImageRef) (stop func())
	// Write writes some data to the image, as a node does that has mounted it.
	Write func(t *testing.T, ref rbdutil.ImageRef)
	// Snapshot creates a snapshot of the image.
	Snapshot func(t *testing.T, ref rbdutil.ImageRef, name string)
	// Clone creates a clone of a snapshot.
	Clone func(t *testing.T, ref rbdutil.ImageRef, snapshot string, clone rbdutil.ImageRef)
	// Group adds the image to a group.
	Group func(t *testing.T, ref rbdutil.ImageRef)
	// Lock sets a lock on the image.
	Lock func(t *testing.T, ref rbdutil.ImageRef)
	// Mirror mirrors the image to another cluster.
	Mirror func(t *testing.T, ref rbdutil.ImageRef)
	// Migrate prepares the migration of the image to another name, and returns that name.
	Migrate func(t *testing.T, ref rbdutil.ImageRef) (to rbdutil.ImageRef)
	// TrashByHand moves the image to the trash as an administrator does.
	TrashByHand func(t *testing.T, ref rbdutil.ImageRef)
	// SetRecord sets the metadata value of the record, as an administrator does.
	SetRecord func(t *testing.T, ref rbdutil.ImageRef, value string)
	// LeavePartial creates a name without an image, as a client leaves it that is killed
	// during a creation or removal.
	LeavePartial func(t *testing.T, ref rbdutil.ImageRef)
}

// timeout bounds each case: Ceph on a busy machine is slow.
const timeout = 60 * time.Second

// Run runs the whole contract, each case with its own image name.
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

// testCase is one case of the contract.
type testCase func(t *testing.T, h Harness, ref rbdutil.ImageRef)

// storeCases test rbdutil.Store.
func storeCases() map[string]testCase {
	return map[string]testCase{
		"create makes an empty image of the requested layout":               createMakesLayout,
		"create puts data objects into the data pool":                       createWithDataPool,
		"create names the pool that is missing":                             createMissingPool,
		"create names the data pool that is missing":                        createMissingDataPool,
		"create refuses a name that is taken":                               createTaken,
		"get names what is missing":                                         getMissing,
		"get shows watchers and snapshots":                                  getShowsHolders,
		"update: record and size are set, and a repetition has no effect":   updateSets,
		"update: an image never shrinks":                                    updateNeverShrinks,
		"update: a missing image or pool is named":                          updateMissing,
		"update: an image with a lock is not resized":                       updateLocked,
		"only the image that was seen is changed":                           changedSinceSeen,
		"a record that cannot be parsed is reported":                        recordUnreadable,
		"a clone has the record of its source at first":                     cloneHasRecord,
		"get shows clones, and delete names them":                           clonesShown,
		"a partial image is not found, occupies its name, and is removable": partialImage,
		"trash: an image has no name there, and its maker removes it":       trashAndRemove,
		"trash: an image with a holder is not moved there":                  trashWithHolders,
		"trash: a missing image or pool is named":                           trashMissing,
		"trash: an image is kept for the requested time":                    trashKeeps,
		"trash: images that others moved there are not removed":             trashOfOthers,
		"trash: a move that is completed later still belongs to its maker":  trashFinishedLater,
		"trash: a missing entry is not found":                               removeMissing,
		"trash: an image with snapshots is not removed":                     removeWithSnapshots,
		"restore: name, data and record are as before":                      restoreImage,
		"restore: the name of another image is not used":                    restoreTaken,
		"restore: an image without a record has none after it":              restoreRecordless,
		"migration: neither source nor target can be removed":               migrationStays,
		"list names the images of the pool":                                 listNames,
		"list of a missing pool fails":                                      listMissing,
		"has-changes distinguishes an empty image from one with data":       hasChangesReports,
		"has-changes of a missing image fails":                              hasChangesMissing,
	}
}

// imagesCases test rbdutil.Images.
func imagesCases() map[string]testCase {
	return map[string]testCase{
		"images: only the maker's images are removed from the trash":           removeDeleted,
		"images: ensure twice is one image":                                    ensureTwice,
		"images: ensure completes an image after an interruption at any step":  ensureResumes,
		"images: ensure does not change an image of another owner":             ensureForeign,
		"images: ensure names the mismatch of its own image":                   ensureMismatch,
		"images: ensure replaces an incomplete image that does not match":      ensureReplacesIncomplete,
		"images: delete twice is success":                                      deleteTwice,
		"images: delete removes a partial image":                               deletePartial,
		"images: delete keeps an image of another volume":                      deleteForeign,
		"images: delete keeps an image while it is in use":                     deleteInUse,
		"images: delete names the snapshots":                                   deleteSnapshots,
		"images: delete in a missing pool fails":                               deleteMissingPool,
		"images: images that became no volume are removed":                     removeOrphans,
		"images: images that may be in use are not removed as orphans":         keepNonOrphans,
		"images: a clone is created once, with its own snapshot":               cloneIsOne,
		"images: a clone may be larger than its source":                        cloneLarger,
		"images: an impossible clone is refused":                               cloneRefused,
		"images: a mounted image is cloned, unless the spec forbids it":        cloneOfMounted,
		"images: a clone does not replace an image of another owner":           cloneForeign,
		"images: a clone outlives its source, and both are removed at the end": cloneOutlivesSource,
		"images: the depth of clones is limited":                               cloneDepth,
		"images: the snapshots of a source are limited":                        cloneManyTimes,
		"images: a clone is completed after an interruption at any step":       cloneResumes,
		"images: an interrupted clone is removed completely":                   cloneOrphaned,
		"images: a complete clone is not removed as an orphan":                 cloneKept,
		"images: a clone that was marked as unused is used again":              cloneMarkedUnused,
		"images: a clone whose replacement was interrupted is replaced":        clonePartlyReplaced,
		"images: a clone of another cluster is not changed":                    cloneElsewhere,
		"images: snapshots in use are not removed":                             snapshotsKept,
		"images: the snapshot of a partial clone is kept while it is in use":   snapshotKeptForClone,
		"images: expand never shrinks, and checks the precondition":            expandOnly,
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
		t.Errorf("features %s, want layering,data-pool, and only layering as requested", got)
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
		t.Errorf("watchers %q, want one address", img.Watchers)
	}
	stop()
	if img := get(t, h, ref); len(img.Watchers) != 0 {
		t.Errorf("watchers %q after the last has closed: reading an image must not add a watcher", img.Watchers)
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
		t.Errorf("error %v, want one with %q", err, want)
	}
}

func partialImage(t *testing.T, h Harness, ref rbdutil.ImageRef) {
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

// see returns an image as the store returns it.
func see(t *testing.T, h Harness, ref rbdutil.ImageRef) rbdutil.Image {
	t.Helper()
	img, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
	if err != nil {
		t.Fatal(err)
	}
	// A nil and an empty list mean the same.
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

// get returns an image without its id, which Ceph chooses.
func get(t *testing.T, h Harness, ref rbdutil.ImageRef) rbdutil.Image {
	t.Helper()
	img := see(t, h, ref)
	img.ID = ""
	return img
}

// update changes the current image.
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
