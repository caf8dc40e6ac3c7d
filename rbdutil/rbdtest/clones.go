package rbdtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// sourceFor creates an image with data, to be cloned.
func sourceFor(t *testing.T, h Harness, ref rbdutil.ImageRef) rbdutil.ImageSpec {
	t.Helper()
	spec := specOf(ref)
	spec.Owner.ClaimUID, spec.Owner.VolumeName = "5ource", "pvc-5ource"
	_, err := rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	h.Write(t, ref)
	return spec
}

// cloneSpec is the spec of clone number n of the source.
func cloneSpec(source rbdutil.ImageSpec, n int) rbdutil.ImageSpec {
	spec := source
	spec.Name = fmt.Sprintf("%s-clone-%d", source.Name, n)
	spec.Source = &rbdutil.Source{ImageRef: source.ImageRef, Precondition: preconditionOf(source)}
	spec.Owner.ClaimUID, spec.Owner.VolumeName = spec.Name, "pvc-"+spec.Name
	return spec
}

// emptyTrash removes the images from the trash whose names have the prefix.
func emptyTrash(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	t.Helper()
	must(t, EmptyTrash(longCtxOf(t), h.Store, h.Cluster, ref, specOf(ref).Owner))
}

// longCtxOf is for operations that wait for Ceph's monitors many times.
func longCtxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*timeout)
	t.Cleanup(cancel)
	return ctx
}

// wantEmpty checks that no image has the prefix, in the trash or outside.
func wantEmpty(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	t.Helper()
	names, err := h.Store.List(ctxOf(t), h.Cluster, ref.Pool)
	must(t, err)
	trashed, err := h.Store.ListTrash(ctxOf(t), h.Cluster, ref.Pool)
	must(t, err)
	for _, img := range trashed {
		names = append(names, img.Name)
	}
	for _, name := range names {
		if strings.HasPrefix(name, ref.Name) {
			t.Errorf("%s still exists", name)
		}
	}
}

func cloneIsOne(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, source := rbdutil.NewImages(h.Store), sourceFor(t, h, ref)
	spec := cloneSpec(source, 1)
	for range 2 {
		img, err := images.Ensure(ctxOf(t), h.Cluster, spec)
		must(t, err)
		equal(t, spec.Owner, img.Owner())
		got := get(t, h, spec.ImageRef)
		equal(t, spec.Owner, got.Owner())
		equal(t, spec.Size, got.Size)
		equal(t, rbdutil.Layering, got.Features)
		if got.Parent == nil || got.Parent.Name != "rbd-provisioner-for-"+spec.Name || got.Record.Source == nil || got.Record.Source.SnapshotRef != *got.Parent {
			t.Errorf("parent %v, record %s", got.Parent, got.Record.Encode())
		}
	}
	equal(t, []string{"rbd-provisioner-for-" + spec.Name}, get(t, h, ref).Snapshots)
	written, err := h.Store.HasChanges(ctxOf(t), h.Cluster, spec.ImageRef, "")
	must(t, err)
	if written {
		t.Error("HasChanges reports true for a clone without data of its own")
	}
}

func cloneLarger(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	source := sourceFor(t, h, ref)
	spec := cloneSpec(source, 1)
	spec.Size = 3 * source.Size
	_, err := rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	equal(t, spec.Size, get(t, h, spec.ImageRef).Size)
	equal(t, source.Size, get(t, h, ref).Size)
}

func cloneRefused(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	source := sourceFor(t, h, ref)
	plainImage := rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-plain"}
	must(t, h.Store.Create(ctxOf(t), h.Cluster, plainImage, rbdutil.Layout{Features: rbdutil.ExclusiveLock}))
	for name, test := range map[string]struct {
		change func(*rbdutil.ImageSpec)
		want   error
	}{
		"of a missing image":           {func(s *rbdutil.ImageSpec) { s.Source.Name += "-lost" }, rbdutil.ErrSourceNotFound},
		"in a missing pool":            {func(s *rbdutil.ImageSpec) { s.Source.Pool = "no-such-pool" }, rbdutil.ErrSourceNotFound},
		"of another volume's image":    {func(s *rbdutil.ImageSpec) { s.Source.Precondition.Owner.VolumeName = "another" }, rbdutil.ErrSourceNotFound},
		"of another cluster's image":   {func(s *rbdutil.ImageSpec) { s.Source.Precondition.Owner.ClusterID = "elsewhere" }, rbdutil.ErrSourceNotFound},
		"of a larger image":            {func(s *rbdutil.ImageSpec) { s.Size -= rbdutil.MiB }, rbdutil.ErrSourceIncompatible},
		"larger than the maximum":      {func(s *rbdutil.ImageSpec) { s.Size = 1 << 50 }, rbdutil.ErrSourceIncompatible},
		"with a missing data pool":     {func(s *rbdutil.ImageSpec) { s.DataPool = "no-such-pool" }, rbdutil.ErrDataPoolNotFound},
		"of an image without layering": {func(s *rbdutil.ImageSpec) { s.Source.ImageRef = plainImage; s.Source.Precondition.AllowUnknown = true }, rbdutil.ErrSourceIncompatible},
		"of a mounted image":           {func(s *rbdutil.ImageSpec) { s.Source.Unmounted = true }, rbdutil.ErrImageInUse},
	} {
		t.Run(name, func(t *testing.T) {
			if errors.Is(test.want, rbdutil.ErrImageInUse) {
				defer h.Watch(t, ref)()
			}
			spec := cloneSpec(source, 1)
			spec.Source = &rbdutil.Source{ImageRef: source.ImageRef, Precondition: preconditionOf(source)}
			test.change(&spec)
			_, err := rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
			wantErr(t, err, test.want)
			_, err = h.Store.Get(ctxOf(t), h.Cluster, spec.ImageRef)
			wantErr(t, err, rbdutil.ErrImageNotFound)
		})
	}
}

func cloneOfMounted(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	source := sourceFor(t, h, ref)
	stop := h.Watch(t, ref)
	spec := cloneSpec(source, 1)
	_, err := rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	stop()
	spec = cloneSpec(source, 2)
	spec.Source.Unmounted = true
	_, err = rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
}

func cloneForeign(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	source := sourceFor(t, h, ref)
	for n, prepare := range []func(t *testing.T, ref rbdutil.ImageRef){
		func(t *testing.T, ref rbdutil.ImageRef) { // an image without a record
			must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
			update(t, h, ref, nil, source.Size)
		},
		func(t *testing.T, ref rbdutil.ImageRef) { // an image of another claim
			other := specOf(ref)
			other.Owner.ClaimUID = "another"
			_, err := rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, other)
			must(t, err)
		},
	} {
		spec := cloneSpec(source, n)
		prepare(t, spec.ImageRef)
		before := get(t, h, spec.ImageRef)
		_, err := rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
		wantErr(t, err, rbdutil.ErrForeignImage)
		equal(t, before, get(t, h, spec.ImageRef))
	}
	equal(t, []string(nil), get(t, h, ref).Snapshots)
}

// cloneOutlivesSource deletes a clone, then the source, then the other clones.
func cloneOutlivesSource(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, source := rbdutil.NewImages(h.Store), sourceFor(t, h, ref)
	var clones []rbdutil.ImageSpec
	for n := range 3 {
		clones = append(clones, cloneSpec(source, n))
		_, err := images.Ensure(ctxOf(t), h.Cluster, clones[n])
		must(t, err)
	}
	must(t, images.Delete(ctxOf(t), h.Cluster, clones[0].ImageRef, preconditionOf(clones[0]), 0))
	emptyTrash(t, h, ref)
	if got := get(t, h, ref).Snapshots; len(got) != 2 {
		t.Errorf("the source of two clones has the snapshots %q", got)
	}
	must(t, images.Delete(ctxOf(t), h.Cluster, ref, preconditionOf(source), 0))
	emptyTrash(t, h, ref)
	if trashedAs(t, h, ref).ID == "" {
		t.Fatal("the source was removed, and the data of its clones with it")
	}
	for n, clone := range clones[1:] {
		get(t, h, clone.ImageRef)
		must(t, images.Delete(ctxOf(t), h.Cluster, clone.ImageRef, preconditionOf(clone), 0))
		emptyTrash(t, h, ref)
		if last := n == 1; last == (trashedAs(t, h, ref).ID != "") {
			t.Errorf("after clone %d the source is in the trash: %t", n+1, !last)
		}
	}
	wantEmpty(t, h, ref)
}

// chain creates a chain of clones, and returns their specs.
func chain(t *testing.T, h Harness, ref rbdutil.ImageRef, length int) []rbdutil.ImageSpec {
	t.Helper()
	specs := []rbdutil.ImageSpec{sourceFor(t, h, ref)}
	for n := range length {
		spec := cloneSpec(specs[n], n)
		spec.Name = fmt.Sprintf("%s-%d", ref.Name, n)
		spec.Owner.ClaimUID, spec.Owner.VolumeName = spec.Name, "pvc-"+spec.Name
		ensure(t, h, rbdutil.NewImages(h.Store), spec)
		specs = append(specs, spec)
	}
	return specs
}

// ensure calls Ensure until the image is complete.
func ensure(t *testing.T, h Harness, images *rbdutil.Images, spec rbdutil.ImageSpec) {
	t.Helper()
	for ctx := longCtxOf(t); ; {
		_, err := images.Ensure(ctx, h.Cluster, spec)
		if err == nil {
			return
		}
		if !errors.Is(err, rbdutil.ErrFlattening) && !errors.Is(err, rbdutil.ErrInProgress) {
			t.Errorf("ensure %s: %v", spec.ImageRef, err)
			return
		}
		time.Sleep(10 * time.Millisecond) // as a claim is retried
	}
}

func cloneDepth(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	const length, most = 11, 8
	specs := chain(t, h, ref, length)
	var depths []int
	for _, spec := range specs {
		depth, err := h.Store.CloneDepth(ctxOf(t), h.Cluster, spec.ImageRef)
		must(t, err)
		depths = append(depths, depth)
	}
	equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, most, 0, 1, 2}, depths)
	if got := get(t, h, specs[most].ImageRef).Snapshots; len(got) != 0 {
		t.Errorf("the source of a flattened clone has the snapshots %q", got)
	}
	// From the first to the last, so that each one still has a clone.
	for _, spec := range specs {
		must(t, rbdutil.NewImages(h.Store).Delete(ctxOf(t), h.Cluster, spec.ImageRef, preconditionOf(spec), 0))
	}
	emptyTrash(t, h, ref)
	wantEmpty(t, h, ref)
}

// inParallel calls f with each number below n.
func inParallel(n int, f func(n int)) {
	const workers = 32
	numbers := make(chan int)
	var group sync.WaitGroup
	for range min(n, workers) {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := range numbers {
				f(n)
			}
		}()
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	group.Wait()
}

// cloneManyTimes creates more clones of an image than it may have snapshots.
func cloneManyTimes(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	const most = 256
	images, source := rbdutil.NewImages(h.Store), sourceFor(t, h, ref)
	inParallel(most, func(n int) { ensure(t, h, images, cloneSpec(source, n)) })
	wantMost := func() {
		t.Helper()
		if got := len(get(t, h, ref).Snapshots); got != most {
			t.Errorf("the source has %d snapshots, want %d", got, most)
		}
	}
	wantMost()
	one := cloneSpec(source, most)
	ensure(t, h, images, one)
	if parent := get(t, h, one.ImageRef).Parent; parent == nil || strings.HasSuffix(parent.Name, one.Name) {
		t.Errorf("the clone of an unchanged source has the parent %v, want the last snapshot", parent)
	}
	wantMost()
	h.Write(t, ref)
	after := cloneSpec(source, most+1)
	ensure(t, h, images, after)
	if parent := get(t, h, after.ImageRef).Parent; parent != nil {
		t.Errorf("the clone of a changed source has the older parent %s", parent)
	}
	wantMost()
	// This includes the clone whose snapshot has another clone.
	inParallel(most+2, func(n int) {
		spec := cloneSpec(source, n)
		must(t, images.Delete(ctxOf(t), h.Cluster, spec.ImageRef, preconditionOf(spec), 0))
	})
	inParallel(16, func(int) { emptyTrash(t, h, ref) })
	emptyTrash(t, h, ref)
	equal(t, []string(nil), get(t, h, ref).Snapshots)
}

// cloneResumes interrupts the creation of a clone, and of one that must be flattened, at each
// step.
func cloneResumes(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	specs := chain(t, h, ref, 8)
	for name, source := range map[string]rbdutil.ImageSpec{"clone": specs[0], "flattened": specs[8]} {
		step := 0
		for done := false; !done; step++ {
			spec := cloneSpec(source, step)
			spec.Size += rbdutil.MiB
			_, err := rbdutil.NewImages(&interrupter{h.Store, step}).Ensure(ctxOf(t), h.Cluster, spec)
			if done = err == nil; !done && !errors.Is(err, errInterrupted) {
				t.Fatalf("%s, interrupted at step %d: %v", name, step, err)
			}
			ensure(t, h, rbdutil.NewImages(h.Store), spec)
			img := get(t, h, spec.ImageRef)
			equal(t, spec.Owner, img.Owner())
			equal(t, spec.Size, img.Size)
			if flattened := img.Parent == nil; flattened != (name == "flattened") {
				t.Errorf("%s, interrupted at step %d: parent %v", name, step, img.Parent)
			}
		}
		// Snapshot, clone, record, size; then flatten, and remove the unused snapshot.
		if want := map[string]int{"clone": 4, "flattened": 6}[name]; step <= want {
			t.Errorf("%s was interrupted at %d steps only", name, step-1)
		}
		emptyTrash(t, h, ref) // of clones that were replaced
		snapshots := slices.DeleteFunc(get(t, h, source.ImageRef).Snapshots, func(s string) bool { return !strings.Contains(s, "-clone-") })
		if want := map[string]int{"clone": step, "flattened": 0}[name]; len(snapshots) != want {
			t.Errorf("%s: the source has %d snapshots, want %d: %q", name, len(snapshots), want, snapshots)
		}
	}
}

// cloneOrphaned interrupts the creation at each step, and does not continue it.
func cloneOrphaned(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	specs := chain(t, h, ref, 8)
	images := rbdutil.NewImages(h.Store)
	for name, source := range map[string]rbdutil.ImageSpec{"clone": specs[0], "flattened": specs[8]} {
		for step, done := 0, false; !done; step++ {
			spec := cloneSpec(source, step)
			_, err := rbdutil.NewImages(&interrupter{h.Store, step}).Ensure(ctxOf(t), h.Cluster, spec)
			done = err == nil
			owner := rbdutil.Owner{
				ClaimUID: spec.Owner.ClaimUID, VolumeName: spec.Owner.VolumeName,
				Provisioner: spec.Owner.Provisioner, ClusterID: spec.Owner.ClusterID,
			}
			img, _ := h.Store.Get(ctxOf(t), h.Cluster, spec.ImageRef)
			err = images.RemoveOrphan(ctxOf(t), h.Cluster, spec.ImageRef, owner)
			if isComplete(img, spec) {
				// It has the data of its source.
				wantErr(t, err, rbdutil.ErrNotEmpty)
				err = images.Delete(ctxOf(t), h.Cluster, spec.ImageRef, preconditionOf(spec), 0)
			}
			if err != nil {
				t.Fatalf("%s, interrupted at step %d: %v", name, step, err)
			}
			emptyTrash(t, h, spec.ImageRef)
			must(t, images.RemoveOrphanSnapshots(ctxOf(t), h.Cluster, source.ImageRef, owner, only(spec.Name)))
			emptyTrash(t, h, spec.ImageRef)
			wantEmpty(t, h, spec.ImageRef)
		}
		for _, snapshot := range get(t, h, source.ImageRef).Snapshots {
			if strings.Contains(snapshot, "-clone-") {
				t.Errorf("%s: snapshot %s still exists", name, snapshot)
			}
		}
	}
}

// isComplete reports whether the image is the complete clone of the spec.
func isComplete(img rbdutil.Image, spec rbdutil.ImageSpec) bool {
	return img.Owner() == spec.Owner && img.Size == spec.Size && (!img.Record.Flatten || img.Parent == nil)
}

// only reserves the clone with the name.
func only(name string) func(string) (func(), bool) {
	return func(clone string) (func(), bool) { return func() {}, clone == name }
}

// cloneKept has a complete clone, which has the data of its source but was never written to.
func cloneKept(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, source := rbdutil.NewImages(h.Store), sourceFor(t, h, ref)
	spec := cloneSpec(source, 1)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	wantErr(t, images.RemoveOrphan(ctxOf(t), h.Cluster, spec.ImageRef, spec.Owner), rbdutil.ErrNotEmpty)
	// The same for a clone of the clone.
	again := cloneSpec(spec, 2)
	_, err = images.Ensure(ctxOf(t), h.Cluster, again)
	must(t, err)
	wantErr(t, images.RemoveOrphan(ctxOf(t), h.Cluster, again.ImageRef, again.Owner), rbdutil.ErrNotEmpty)
	equal(t, spec.Size, get(t, h, spec.ImageRef).Record.Source.Size)
}

// cloneMarkedUnused has a clone that was marked as unused, but not moved to the trash. The mark
// must not outlive the return of the claim: it would allow the removal of the clone.
func cloneMarkedUnused(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, source := rbdutil.NewImages(h.Store), sourceFor(t, h, ref)
	spec := cloneSpec(source, 1)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	want := get(t, h, spec.ImageRef)
	marked := want.Record.WithDeletion(spec.Owner, rbdutil.Deletion{Time: time.Now(), Unused: true})
	h.SetRecord(t, spec.ImageRef, marked.Encode())
	_, err = images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	equal(t, want, get(t, h, spec.ImageRef))
}

// clonePartlyReplaced has a partial clone whose replacement was interrupted: it was marked, but
// not moved to the trash. Its record is the copy of the source's, or a new one.
func clonePartlyReplaced(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, source := rbdutil.NewImages(h.Store), sourceFor(t, h, ref)
	for n, owner := range []rbdutil.Owner{source.Owner, cloneSpec(source, 1).Owner} {
		spec := cloneSpec(source, n)
		snapshot := "rbd-provisioner-for-" + spec.Name
		must(t, h.Store.CreateSnapshot(ctxOf(t), h.Cluster, ref, snapshot))
		must(t, h.Store.Clone(ctxOf(t), h.Cluster, ref, snapshot, spec.ImageRef, plain))
		marked := rbdutil.Record{Owner: owner, ImageID: get(t, h, spec.ImageRef).ID}
		marked = marked.WithDeletion(spec.Owner, rbdutil.Deletion{Time: time.Now(), Unused: true})
		h.SetRecord(t, spec.ImageRef, marked.Encode())
		img, err := images.Ensure(ctxOf(t), h.Cluster, spec)
		must(t, err)
		if !isComplete(img, spec) {
			t.Errorf("the clone is %+v", img)
		}
		emptyTrash(t, h, spec.ImageRef)
	}
}

// cloneElsewhere has a clone for the same claim of another cluster, which is a copy of this
// cluster.
func cloneElsewhere(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, source := rbdutil.NewImages(h.Store), sourceFor(t, h, ref)
	spec := cloneSpec(source, 1)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	before := get(t, h, spec.ImageRef)
	spec.Owner.ClusterID = "elsewhere"
	spec.Source = &rbdutil.Source{ImageRef: source.ImageRef, Precondition: rbdutil.Precondition{Owner: rbdutil.Owner{VolumeName: source.Owner.VolumeName}}}
	_, err = images.Ensure(ctxOf(t), h.Cluster, spec)
	wantErr(t, err, rbdutil.ErrForeignImage)
	equal(t, before, get(t, h, spec.ImageRef))
}

// snapshotsKept has snapshots that are in use.
func snapshotsKept(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, source := rbdutil.NewImages(h.Store), sourceFor(t, h, ref)
	h.Snapshot(t, ref, "keep")
	clone := cloneSpec(source, 1)
	_, err := images.Ensure(ctxOf(t), h.Cluster, clone)
	must(t, err)
	must(t, h.Store.CreateSnapshot(ctxOf(t), h.Cluster, ref, "rbd-provisioner-for-pending"))
	before := get(t, h, ref).Snapshots
	unneeded := func(clone string) (func(), bool) { return func() {}, clone != "pending" }
	must(t, images.RemoveOrphanSnapshots(ctxOf(t), h.Cluster, ref, source.Owner, unneeded))
	equal(t, before, get(t, h, ref).Snapshots)
	wantErr(t, h.Store.RemoveSnapshot(ctxOf(t), h.Cluster, *get(t, h, clone.ImageRef).Parent), rbdutil.ErrHasClones)
	wantErr(t, images.Delete(ctxOf(t), h.Cluster, ref, preconditionOf(source), 0), rbdutil.ErrHasSnapshots)
}

// snapshotKeptForClone has a partial clone without a record, which a killed process still
// watches. Only the snapshot shows what that image is.
func snapshotKeptForClone(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, source := rbdutil.NewImages(h.Store), sourceFor(t, h, ref)
	clone := cloneSpec(source, 1)
	must(t, h.Store.CreateSnapshot(ctxOf(t), h.Cluster, ref, "rbd-provisioner-for-"+clone.Name))
	must(t, h.Store.Create(ctxOf(t), h.Cluster, clone.ImageRef, plain))
	before, stop := get(t, h, ref).Snapshots, h.Watch(t, clone.ImageRef)
	wantErr(t, images.RemoveOrphanSnapshots(ctxOf(t), h.Cluster, ref, source.Owner, only(clone.Name)), rbdutil.ErrImageInUse)
	equal(t, before, get(t, h, ref).Snapshots)
	stop()
	must(t, images.RemoveOrphanSnapshots(ctxOf(t), h.Cluster, ref, source.Owner, only(clone.Name)))
	emptyTrash(t, h, clone.ImageRef)
	wantEmpty(t, h, clone.ImageRef)
	equal(t, 0, len(get(t, h, ref).Snapshots))
}

func expandOnly(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	h.Write(t, ref)
	for _, size := range []uint64{3 * spec.Size, 3 * spec.Size, 2 * spec.Size} {
		img, err := images.Expand(ctxOf(t), h.Cluster, ref, size, preconditionOf(spec))
		must(t, err)
		equal(t, 3*spec.Size, img.Size)
		equal(t, 3*spec.Size, get(t, h, ref).Size)
	}
	other := preconditionOf(spec)
	other.Owner.VolumeName = "another"
	_, err = images.Expand(ctxOf(t), h.Cluster, ref, 9*spec.Size, other)
	wantErr(t, err, rbdutil.ErrForeignImage)
	_, err = images.Expand(ctxOf(t), h.Cluster, ref, 1<<60, preconditionOf(spec))
	wantErr(t, err, rbdutil.ErrInvalid)
	ref.Name += "-lost"
	_, err = images.Expand(ctxOf(t), h.Cluster, ref, 9*spec.Size, preconditionOf(spec))
	wantErr(t, err, rbdutil.ErrImageNotFound)
}
