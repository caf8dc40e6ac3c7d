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
	// LeaveRemains makes a name without an image behind it, as a client leaves it
	// that dies in the middle of creating or removing.
	LeaveRemains func(t *testing.T, ref rbdutil.ImageRef)
}

// timeout bounds each case: real Ceph on a busy machine takes its time.
const timeout = 60 * time.Second

// Run runs the whole contract, each case on an image name of its own.
func Run(t *testing.T, h Harness) {
	cases := map[string]func(t *testing.T, h Harness, ref rbdutil.ImageRef){
		"create makes an empty image of the layout asked for":            createMakesLayout,
		"create puts data objects into the data pool":                    createWithDataPool,
		"create names the pool that is missing":                          createMissingPool,
		"create names the data pool that is missing":                     createMissingDataPool,
		"create refuses a name that is taken":                            createTaken,
		"get names what is missing":                                      getMissing,
		"get shows watchers and snapshots":                               getShowsHolders,
		"complete sets metadata and size, and again changes nothing":     completeSets,
		"complete never shrinks":                                         completeNeverShrinks,
		"complete of a missing image says so":                            completeMissing,
		"clones are shown, and named when one deletes what they are of":  clonesShown,
		"remains are not an image, take the name, and can go":            remains,
		"trash takes an image away, and purge what bears the mark":       trashAndPurge,
		"trash refuses an image in use":                                  trashInUse,
		"trash refuses a member of a group":                              trashGrouped,
		"trash of a missing image or pool says which":                    trashMissing,
		"purge of what is not there says so":                             purgeMissing,
		"purge refuses an image with snapshots":                          purgeSnapshots,
		"images: purge removes what was deleted, and no other":           purgeDeleted,
		"list names the images of the pool":                              listNames,
		"list of a missing pool says so":                                 listMissing,
		"written tells an empty image from one with data":                writtenTells,
		"written of a missing image says so":                             writtenMissing,
		"images: ensure twice is one image":                              ensureTwice,
		"images: ensure finishes what was cut short at any step":         ensureResumes,
		"images: ensure leaves somebody else's image alone":              ensureForeign,
		"images: ensure says how its own image does not fit":             ensureMismatch,
		"images: ensure replaces an unfinished image that misfits":       ensureReplacesUnfinished,
		"images: delete twice is success":                                deleteTwice,
		"images: delete takes remains away":                              deleteRemains,
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
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // Ceph's monitors take up to a second for each snapshot
			run(t, h, rbdutil.ImageRef{Pool: h.Pool, Name: uniqueName(t)})
		})
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

func completeSets(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	items := []rbdutil.MetadataItem{{Key: "b", Value: "2"}, {Key: "a", Value: "ünï ☃"}}
	for range 2 {
		must(t, h.Store.Complete(ctxOf(t), h.Cluster, ref, items, 5*rbdutil.MiB))
		img := get(t, h, ref)
		equal(t, map[string]string{"a": "ünï ☃", "b": "2"}, img.Metadata)
		equal(t, 5*rbdutil.MiB, img.Size)
	}
}

func completeNeverShrinks(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	must(t, h.Store.Complete(ctxOf(t), h.Cluster, ref, nil, 5*rbdutil.MiB))
	wantErr(t, h.Store.Complete(ctxOf(t), h.Cluster, ref, nil, 4*rbdutil.MiB), rbdutil.ErrInvalid)
	equal(t, 5*rbdutil.MiB, get(t, h, ref).Size)
}

func completeMissing(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	wantErr(t, h.Store.Complete(ctxOf(t), h.Cluster, ref, nil, rbdutil.MiB), rbdutil.ErrImageNotFound)
}

func clonesShown(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	spec := specOf(ref)
	_, err := rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	h.Snapshot(t, ref, "base")
	clone := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-clone"}
	h.Clone(t, ref, "base", clone)
	equal(t, []string{clone.String()}, get(t, h, ref).Clones)
	err = rbdutil.NewImages(h.Store).Delete(ctxOf(t), h.Cluster, ref, expectationOf(spec))
	wantErr(t, err, rbdutil.ErrHasSnapshots)
	if want := ref.String() + " has base, of which " + clone.String() + " are clones"; !strings.Contains(err.Error(), want) {
		t.Errorf("error %v does not say: %s", err, want)
	}
}

func remains(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	h.LeaveRemains(t, ref)
	_, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
	wantErr(t, err, rbdutil.ErrImageNotFound)
	wantErr(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain), rbdutil.ErrImageExists)
	must(t, h.Store.RemoveRemains(ctxOf(t), h.Cluster, ref))
	equal(t, rbdutil.TrashedImage{}, trashedAs(t, h, ref))
	wantErr(t, h.Store.RemoveRemains(ctxOf(t), h.Cluster, ref), rbdutil.ErrImageNotFound)
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	wantErr(t, h.Store.RemoveRemains(ctxOf(t), h.Cluster, ref), rbdutil.ErrImageExists)
	get(t, h, ref)
	ref.Pool = "no-such-pool"
	wantErr(t, h.Store.RemoveRemains(ctxOf(t), h.Cluster, ref), rbdutil.ErrPoolNotFound)
}

var plain = rbdutil.Layout{Features: rbdutil.Layering}

func get(t *testing.T, h Harness, ref rbdutil.ImageRef) rbdutil.Image {
	t.Helper()
	img, err := h.Store.Get(ctxOf(t), h.Cluster, ref)
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Metadata) == 0 {
		img.Metadata = nil // none and empty are the same to everybody
	}
	if len(img.Watchers) == 0 {
		img.Watchers = nil
	}
	if len(img.Snapshots) == 0 {
		img.Snapshots = nil
	}
	if len(img.Clones) == 0 {
		img.Clones = nil
	}
	if img.ID == "" {
		t.Errorf("image %s has no id", ref)
	}
	img.ID = "" // Ceph's own choice
	return img
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
