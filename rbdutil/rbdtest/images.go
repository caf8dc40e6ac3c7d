package rbdtest

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func specOf(ref rbdutil.ImageRef) rbdutil.ImageSpec {
	return rbdutil.ImageSpec{
		ImageRef: ref, Layout: plain, Size: 8 * rbdutil.MiB,
		Owner: rbdutil.Owner{
			ClaimUID: "1e7f", ClaimNamespace: "default", ClaimName: "www-web-0",
			VolumeName: "pvc-1e7f", Provisioner: "ceph.com/rbd", ClusterID: "here",
		},
	}
}

func preconditionOf(spec rbdutil.ImageSpec) rbdutil.Precondition {
	return rbdutil.Precondition{Owner: rbdutil.Owner{
		VolumeName: spec.Owner.VolumeName, Provisioner: spec.Owner.Provisioner, ClusterID: spec.Owner.ClusterID,
	}}
}

func ensureTwice(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)
	for range 2 {
		img, err := images.Ensure(ctxOf(t), h.Cluster, spec)
		must(t, err)
		equal(t, spec.Size, img.Size)
		equal(t, spec.Owner, img.Owner())
		got := get(t, h, ref)
		equal(t, spec.Size, got.Size)
		equal(t, spec.Features, got.Features)
		equal(t, spec.Owner, got.Owner())
	}
}

func ensureResumes(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	spec := specOf(ref)
	spec.Name += "-partial"
	h.LeavePartial(t, spec.ImageRef)
	_, err := rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	equal(t, spec.Owner, get(t, h, spec.ImageRef).Owner())

	for steps := 0; ; steps++ {
		spec.Name = ref.Name + "-" + string(rune('a'+steps))
		_, err := rbdutil.NewImages(&interrupter{h.Store, steps}).Ensure(ctxOf(t), h.Cluster, spec)
		complete := err == nil
		if !complete {
			wantErr(t, err, errInterrupted)
		}
		_, err = rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
		must(t, err)
		got := get(t, h, spec.ImageRef)
		equal(t, spec.Size, got.Size)
		equal(t, spec.Owner, got.Owner())
		if complete {
			return
		}
	}
}

func ensureForeign(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)

	// No owner, but a size: it may have been written to.
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	update(t, h, ref, nil, spec.Size)
	before := get(t, h, ref)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	wantErr(t, err, rbdutil.ErrForeignImage)
	equal(t, before, get(t, h, ref))

	// Another owner, complete or not.
	for _, size := range []uint64{0, spec.Size} {
		spec.Name += "-x"
		other := spec
		other.Owner.ClaimUID, other.Size = "another", size
		_, err := images.Ensure(ctxOf(t), h.Cluster, other)
		must(t, err)
		before := get(t, h, spec.ImageRef)
		_, err = images.Ensure(ctxOf(t), h.Cluster, spec)
		wantErr(t, err, rbdutil.ErrForeignImage)
		equal(t, before, get(t, h, spec.ImageRef))
	}
}

func ensureMismatch(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	for name, change := range map[string]func(*rbdutil.ImageSpec){
		"size":        func(s *rbdutil.ImageSpec) { s.Size *= 2 },
		"features":    func(s *rbdutil.ImageSpec) { s.Features |= rbdutil.ExclusiveLock },
		"object size": func(s *rbdutil.ImageSpec) { s.ObjectSize = 1 << 20 },
		"data pool":   func(s *rbdutil.ImageSpec) { s.DataPool = h.DataPool },
	} {
		t.Run(name, func(t *testing.T) {
			changed := spec
			change(&changed)
			_, err := images.Ensure(ctxOf(t), h.Cluster, changed)
			wantErr(t, err, rbdutil.ErrMismatch)
			equal(t, spec.Size, get(t, h, ref).Size)
		})
	}
}

func ensureReplacesIncomplete(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	spec := specOf(ref)
	incomplete := spec
	incomplete.Size = 0
	_, err := rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, incomplete)
	must(t, err)
	spec.Features |= rbdutil.ExclusiveLock
	_, err = rbdutil.NewImages(h.Store).Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	equal(t, spec.Features, get(t, h, ref).Features)
}

func deleteTwice(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	for range 2 {
		must(t, images.Delete(ctxOf(t), h.Cluster, ref, preconditionOf(spec), 0))
		_, err = h.Store.Get(ctxOf(t), h.Cluster, ref)
		wantErr(t, err, rbdutil.ErrImageNotFound)
	}
}

func deletePartial(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	h.LeavePartial(t, ref)
	must(t, rbdutil.NewImages(h.Store).Delete(ctxOf(t), h.Cluster, ref, preconditionOf(specOf(ref)), 0))
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain)) // the name is free
}

func deleteForeign(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	for name, precondition := range map[string]rbdutil.Precondition{
		"another volume":                    {Owner: rbdutil.Owner{VolumeName: "pvc-other", ClusterID: "here"}},
		"the same name in another cluster":  {Owner: rbdutil.Owner{VolumeName: "pvc-1e7f", ClusterID: "elsewhere"}},
		"another volume, with AllowUnknown": {Owner: rbdutil.Owner{VolumeName: "pvc-other"}, AllowUnknown: true},
	} {
		if err := images.Delete(ctxOf(t), h.Cluster, ref, precondition, 0); !errors.Is(err, rbdutil.ErrForeignImage) {
			t.Errorf("%s: %v, want %v", name, err, rbdutil.ErrForeignImage)
		}
	}
	equal(t, spec.Owner, get(t, h, ref).Owner())

	ref.Name += "-unrecorded"
	must(t, h.Store.Create(ctxOf(t), h.Cluster, ref, plain))
	wantErr(t, images.Delete(ctxOf(t), h.Cluster, ref, preconditionOf(spec), 0), rbdutil.ErrForeignImage)
	get(t, h, ref)
	precondition := preconditionOf(spec)
	precondition.AllowUnknown = true
	must(t, images.Delete(ctxOf(t), h.Cluster, ref, precondition, 0))
}

func deleteInUse(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	stop := h.Watch(t, ref)
	wantErr(t, images.Delete(ctxOf(t), h.Cluster, ref, preconditionOf(spec), 0), rbdutil.ErrImageInUse)
	get(t, h, ref)
	stop()
	must(t, images.Delete(ctxOf(t), h.Cluster, ref, preconditionOf(spec), 0))
}

func deleteSnapshots(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	images, spec := rbdutil.NewImages(h.Store), specOf(ref)
	_, err := images.Ensure(ctxOf(t), h.Cluster, spec)
	must(t, err)
	h.Snapshot(t, ref, "monday")
	wantErr(t, images.Delete(ctxOf(t), h.Cluster, ref, preconditionOf(spec), 0), rbdutil.ErrHasSnapshots)
	equal(t, []string{"monday"}, get(t, h, ref).Snapshots)
}

func deleteMissingPool(t *testing.T, h Harness, ref rbdutil.ImageRef) {
	ref.Pool = "no-such-pool"
	err := rbdutil.NewImages(h.Store).Delete(ctxOf(t), h.Cluster, ref, preconditionOf(specOf(ref)), 0)
	wantErr(t, err, rbdutil.ErrPoolNotFound)
}

// uniqueName returns an image name that no other test or earlier run uses.
func uniqueName(t *testing.T) string {
	t.Helper()
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return "contract-" + hex.EncodeToString(b[:])
}
