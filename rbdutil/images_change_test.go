package rbdutil_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// completed returns a fake in which another cluster completes the image and writes to it,
// directly before the operation.
func completed(t *testing.T, op string, there rbdutil.Image) *scripted {
	t.Helper()
	ceph := newScripted(nil)
	ceph.Put(there)
	ceph.Before = func(_ context.Context, this string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if this != op {
			return nil
		}
		ceph.Before = nil
		err := ceph.Change(ref, func(i *rbdutil.Image) {
			i.Record = rbdutil.Record{Owner: rbdutil.Owner{ClaimUID: "1e7f", Provisioner: "ceph.com/rbd", ClusterID: "there"}, Size: spec.Size}
			i.Size = spec.Size
		})
		if err != nil {
			t.Error(err)
		}
		return ceph.Write(ref)
	}
	return ceph
}

// If the image changed after it was read, the operation must not change it.
func TestAnImageThatChangedAfterItWasReadIsNotChanged(t *testing.T) {
	t.Parallel()
	begun := rbdutil.Image{ImageRef: ref, Features: rbdutil.Layering}
	misfit := rbdutil.Image{ImageRef: ref, Features: rbdutil.ExclusiveLock}
	ours := rbdutil.Image{ImageRef: ref, Size: spec.Size, Features: rbdutil.Layering, Record: rbdutil.Record{Owner: owner}}
	type images = *rbdutil.Images
	for name, test := range map[string]struct {
		op    string
		there rbdutil.Image
		do    func(context.Context, images) error
	}{
		"removing an orphan": {rbdfake.OpMoveToTrash, begun, func(ctx context.Context, i images) error {
			return i.RemoveOrphan(ctx, cluster, ref, owner)
		}},
		"replacing a mismatch": {rbdfake.OpMoveToTrash, misfit, func(ctx context.Context, i images) error {
			_, err := i.Ensure(ctx, cluster, spec)
			return err
		}},
		"completing a partial image": {rbdfake.OpUpdate, begun, func(ctx context.Context, i images) error {
			_, err := i.Ensure(ctx, cluster, spec)
			return err
		}},
		"deleting": {rbdfake.OpMoveToTrash, ours, func(ctx context.Context, i images) error {
			return i.Delete(ctx, cluster, ref, precondition, 0)
		}},
		"expanding": {rbdfake.OpUpdate, ours, func(ctx context.Context, i images) error {
			_, err := i.Expand(ctx, cluster, ref, 2*spec.Size, precondition)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ceph := completed(t, test.op, test.there)
			if err := test.do(t.Context(), rbdutil.NewImages(ceph)); !errors.Is(err, rbdutil.ErrChanged) {
				t.Errorf("error %v, want %v", err, rbdutil.ErrChanged)
			}
			img := ceph.image(t)
			if img.Size != spec.Size || img.Owner().ClusterID != "there" || img.Record.Deleted != nil {
				t.Errorf("image %+v, want the one of the other cluster", img)
			}
			if written, err := ceph.HasChanges(t.Context(), cluster, ref, ""); err != nil || !written {
				t.Errorf("the data of the other cluster is lost: HasChanges reports %t, %v", written, err)
			}
		})
	}
}

// After a failed move, the image must not have a record that covers a later move by another
// client.
func TestAFailedMoveLeavesNoDeletionInTheRecord(t *testing.T) {
	t.Parallel()
	ceph := newScripted(nil)
	images := rbdutil.NewImages(ceph)
	if _, err := images.Ensure(t.Context(), cluster, spec); err != nil {
		t.Fatal(err)
	}
	ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpMoveToTrash {
			return rbdutil.ErrNoSpace
		}
		return nil
	}
	if err := images.Delete(t.Context(), cluster, ref, precondition, 0); !errors.Is(err, rbdutil.ErrNoSpace) {
		t.Fatalf("error %v", err)
	}
	if got := ceph.image(t).Record.Deleted; got != nil {
		t.Errorf("the record says that it was deleted: %+v", got)
	}
	if err := ceph.TrashByHand(ref); err != nil {
		t.Fatal(err)
	}
	trashed, err := images.ListTrash(t.Context(), cluster, ref.Pool)
	if err != nil || len(trashed) != 1 {
		t.Fatalf("trash %v, %v", trashed, err)
	}
	if err := images.RemoveFromTrash(t.Context(), cluster, ref.Pool, trashed[0], owner); !errors.Is(err, rbdutil.ErrForeignImage) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrForeignImage)
	}
}

func TestRemoveOrphanChecksForDataWithAnyRecord(t *testing.T) {
	t.Parallel()
	parent := &rbdutil.SnapshotRef{Pool: "kube", ImageID: "1", Name: "rbd-provisioner-for-" + ref.Name}
	copied := recordOf(func(o *rbdutil.Owner) { o.ClaimUID = "5ource" })
	copied.ImageID = parent.ImageID
	for name, img := range map[string]rbdutil.Image{
		"ours":                             {Record: ours},
		"of another volume":                {Record: recordOf(func(o *rbdutil.Owner) { o.VolumeName = "restored" })},
		"without a volume":                 {Record: recordOf(func(o *rbdutil.Owner) { o.VolumeName = "" })},
		"a clone with its source's record": {Parent: parent, Record: copied},
		"a clone without a record":         {Parent: parent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ceph := newScripted(nil)
			img.ImageRef, img.Size = ref, spec.Size
			ceph.Put(img)
			if err := ceph.Write(ref); err != nil {
				t.Fatal(err)
			}
			if err := rbdutil.NewImages(ceph).RemoveOrphan(t.Context(), cluster, ref, owner); !errors.Is(err, rbdutil.ErrNotEmpty) {
				t.Errorf("error %v, want %v", err, rbdutil.ErrNotEmpty)
			}
			wantCalls(t, ceph, "get", "has-changes")
		})
	}
}

func TestRemoveOrphanKeepsImagesOfOthers(t *testing.T) {
	t.Parallel()
	for name, img := range map[string]rbdutil.Image{
		"a clone of another snapshot":       {Parent: &rbdutil.SnapshotRef{Pool: "kube", ImageID: "1", Name: "monday"}},
		"a clone of another clone's":        {Parent: &rbdutil.SnapshotRef{Pool: "kube", ImageID: "1", Name: "rbd-provisioner-for-kubernetes-dynamic-pvc-2"}},
		"an image with a size and no owner": {Size: 1},
		"another cluster's":                 {Record: recordOf(func(o *rbdutil.Owner) { o.ClusterID = "there" })},
		"of no cluster":                     {Record: recordOf(func(o *rbdutil.Owner) { o.ClusterID = "" })},
		"another provisioner's":             {Record: recordOf(func(o *rbdutil.Owner) { o.Provisioner = "example.com/rbd" })},
		"another claim's":                   {Record: recordOf(func(o *rbdutil.Owner) { o.ClaimUID = "2" })},
		"one with an unreadable record":     {RecordError: errors.New("metadata of the future")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ceph := newScripted(nil)
			img.ImageRef = ref
			ceph.Put(img)
			if err := rbdutil.NewImages(ceph).RemoveOrphan(t.Context(), cluster, ref, owner); !errors.Is(err, rbdutil.ErrForeignImage) {
				t.Errorf("error %v, want %v", err, rbdutil.ErrForeignImage)
			}
			wantCalls(t, ceph, "get")
		})
	}
}

func TestDeletedImagesHaveTheirDeletionInTheRecord(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		there rbdutil.Record
		want  rbdutil.Owner
	}{
		"ours":            {ours, owner},
		"administrator's": {rbdutil.Record{Owner: rbdutil.Owner{VolumeName: "pvc-1e7f"}}, rbdutil.Owner{VolumeName: "pvc-1e7f"}},
		"a predecessor's": {rbdutil.Record{}, rbdutil.Owner{VolumeName: "pvc-1e7f", Provisioner: "ceph.com/rbd", ClusterID: "here"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ceph := rbdfake.New("kube")
			ceph.Put(rbdutil.Image{ImageRef: ref, Size: spec.Size, Record: test.there})
			images := rbdutil.NewImages(ceph)
			precondition := rbdutil.Precondition{AllowUnknown: true, Owner: rbdutil.Owner{VolumeName: "pvc-1e7f", Provisioner: "ceph.com/rbd", ClusterID: "here"}}
			if err := images.Delete(t.Context(), cluster, ref, precondition, time.Hour); err != nil {
				t.Fatal(err)
			}
			trashed, err := images.ListTrash(t.Context(), cluster, ref.Pool)
			if err != nil || len(trashed) != 1 {
				t.Fatalf("trash %v, %v", trashed, err)
			}
			record, err := images.GetTrashed(t.Context(), cluster, ref.Pool, trashed[0])
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, record.Owner); diff != "" {
				t.Errorf("owner (-want +got):\n%s", diff)
			}
			if !record.DeletedBy(precondition.Owner, trashed[0]) || record.Deleted.Unused {
				t.Errorf("deletion %+v at %s", record.Deleted, trashed[0].Trashed)
			}
			if err := images.RemoveFromTrash(t.Context(), cluster, ref.Pool, trashed[0], precondition.Owner); !errors.Is(err, rbdutil.ErrNotExpired) {
				t.Errorf("error %v, want %v", err, rbdutil.ErrNotExpired)
			}
		})
	}
}

// When a clone fails, Ceph detaches it from its parent and removes it. If this is interrupted,
// it leaves an image without a parent, with a copy of the source's record.
func TestAPartialCloneWithoutAParentIsReplaced(t *testing.T) {
	t.Parallel()
	ceph := newScripted(nil)
	source := rbdutil.ImageRef{Pool: "kube", Name: "source"}
	record := recordOf(func(o *rbdutil.Owner) { o.ClaimUID, o.VolumeName = "5ource", "src" })
	record.ImageID = "s"
	ceph.Put(rbdutil.Image{ImageRef: source, ID: "s", Size: spec.Size, Features: rbdutil.Layering, Record: record})
	ceph.Put(rbdutil.Image{ImageRef: ref, ID: "left", Size: spec.Size, Features: rbdutil.Layering, Record: record})
	clone := spec
	clone.Source = &rbdutil.Source{ImageRef: source, Precondition: rbdutil.Precondition{Owner: rbdutil.Owner{VolumeName: "src", ClusterID: "here"}}}
	img, err := rbdutil.NewImages(ceph).Ensure(t.Context(), cluster, clone)
	if err != nil || img.ID == "left" || img.Parent == nil {
		t.Errorf("image %+v, error %v", img, err)
	}
}
