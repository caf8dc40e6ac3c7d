package provisioner

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// loseSource deletes the source claim with its volume and image.
func (w *cloneWorld) loseSource(t *testing.T) {
	t.Helper()
	fixture.Must(t, w.Claims.Delete(w.claim))
	fixture.Must(t, w.Delete(t.Context(), w.Release(t, w.volume.DeepCopy())))
	w.Remove(t, w.volume.Name)
}

// A source claim may be deleted at any time, also before the volume of the clone is saved.
func TestCloneIsProvisionedAfterItsSourceIsDeleted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		source map[string]string
		change func(*cloneWorld)
		claim  []func(*corev1.PersistentVolumeClaim)
	}{
		"as large as its source": {},
		"larger, of xfs":         {source: map[string]string{"fsType": "xfs"}, claim: []func(*corev1.PersistentVolumeClaim){fixture.Requesting("3Gi")}},
		"read-only, of xfs":      {source: map[string]string{"fsType": "xfs"}, claim: []func(*corev1.PersistentVolumeClaim){fixture.AccessModes(corev1.ReadOnlyMany)}},
		"of a block volume":      {source: map[string]string{"volumeMode": "Block"}, claim: []func(*corev1.PersistentVolumeClaim){fixture.Requesting("3Gi"), fixture.Block}},
		"of a file system to grow": {change: func(w *cloneWorld) {
			w.claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("512Mi")}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCloneWorld(t, test.source, test.change)
			claim := fixture.Claim(append([]func(*corev1.PersistentVolumeClaim){fixture.CloneOf("db")}, test.claim...)...)
			fixture.Add(t, w.Claims, claim)
			want := w.provision(t, fixture.Options(fixture.Class(nil), claim)) // and it is not saved
			w.loseSource(t)
			w.restart()
			got := w.provision(t, fixture.Options(fixture.Class(nil), claim))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("volume (-before +after):\n%s", diff)
			}
			w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
		})
	}
}

// A clone with a record can be completed without its source.
func TestInterruptedCloneNeedsItsSourceUntilItHasARecord(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		op       string
		after    bool
		finished bool
	}{
		"before the snapshot": {rbdfake.OpCreateSnapshot, false, false},
		"after the snapshot":  {rbdfake.OpCreateSnapshot, true, false},
		"before the clone":    {rbdfake.OpClone, false, false},
		"after the clone":     {rbdfake.OpClone, true, false},
		"before its record":   {rbdfake.OpUpdate, false, false},
		"after its record":    {rbdfake.OpUpdate, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCloneWorld(t, map[string]string{"fsType": "xfs"})
			claim := fixture.Claim(fixture.CloneOf("db"), fixture.Requesting("3Gi"))
			fixture.Add(t, w.Claims, claim)
			w.FailOnce(test.op, test.after, rbdutil.ErrConnectionLost)
			if _, _, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), claim)); !errors.Is(err, rbdutil.ErrConnectionLost) {
				t.Fatalf("error %v", err)
			}
			w.Ceph.Before, w.Ceph.After = nil, nil
			fixture.Must(t, w.Claims.Delete(w.claim))
			w.restart()
			volume, state, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), claim))
			if !test.finished {
				want := "source claim db does not exist in namespace shop: the clone will be created when the source claim is bound"
				if volume != nil || state != noChange || fixture.TextOf(err) != want {
					t.Errorf("%v, %v\nwant  %s", state, err, want)
				}
				// The source is available again, and the clone is created.
				fixture.Add(t, w.Claims, w.claim)
				volume = w.provision(t, fixture.Options(fixture.Class(nil), claim))
			} else if err != nil {
				t.Fatal(err)
			}
			if volume.Spec.RBD.FSType != "xfs" || volume.Annotations[annPreResizeCapacity] != "1Gi" || volume.Annotations[annClonedFrom] != "pvc-db-uid" {
				t.Errorf("volume %+v", volume)
			}
			if diff := cmp.Diff([]string{"nouuid"}, volume.Spec.MountOptions); diff != "" {
				t.Errorf("mount options (-want +got):\n%s", diff)
			}
		})
	}
}

// A clone without a record, or with the record of another claim, is not completed.
func TestCloneIsNotResumedFromAForeignImage(t *testing.T) {
	t.Parallel()
	source := &rbdutil.RecordedSource{SourceVolume: rbdutil.SourceVolume{VolumeName: "pvc-db-uid"}}
	for name, img := range map[string]rbdutil.Image{
		"of another cluster": {Record: rbdutil.Record{Owner: rbdutil.Owner{ClaimUID: "1e7f", Provisioner: DefaultName, ClusterID: "there"}, Source: source}},
		"of another claim":   {Record: rbdutil.Record{Owner: rbdutil.Owner{ClaimUID: "2", Provisioner: DefaultName, ClusterID: "here"}, Source: source}},
		"that is no clone":   {Record: fixture.Record(1 << 30)},
		"without a record":   {},
		"unreadable":         {Record: rbdutil.Record{Owner: fixture.Record(0).Owner, Source: source}, RecordError: errors.New("x")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, claim := newWorld(t), fixture.Claim(fixture.CloneOf("db"))
			fixture.Add(t, w.Claims, claim)
			img.ImageRef, img.Size = fixture.ImageRef("1e7f"), 1<<30
			w.Ceph.Put(img)
			before := w.Image(t, img.ImageRef)
			volume, state, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), claim))
			if volume != nil || state != noChange || err == nil {
				t.Errorf("volume %v, %v, %v", volume, state, err)
			}
			if diff := cmp.Diff(before.Record, w.Image(t, img.ImageRef).Record); diff != "" {
				t.Errorf("record (-before +after):\n%s", diff)
			}
		})
	}
}

// The record shows another cluster in the pool which cluster's snapshot it is.
func TestSourceWithoutRecordGetsOneBeforeItsFirstSnapshot(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, nil, func(w *cloneWorld) {
		w.volume.Annotations[annPredecessor] = DefaultName
		_ = w.Ceph.Change(fixture.ImageRef("db-uid"), func(i *rbdutil.Image) { i.Record = rbdutil.Record{} })
	})
	w.FailOnce(rbdfake.OpCreateSnapshot, false, rbdutil.ErrTimeout)
	if _, _, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), fixture.Claim(fixture.CloneOf("db")))); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Fatalf("error %v", err)
	}
	w.Ceph.Before = nil
	want := rbdutil.Record{Owner: rbdutil.Owner{VolumeName: "pvc-db-uid", Provisioner: DefaultName, ClusterID: "here"}}
	if diff := cmp.Diff(want, w.Image(t, fixture.ImageRef("db-uid")).Record); diff != "" {
		t.Errorf("record of the source (-want +got):\n%s", diff)
	}
	w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim(fixture.CloneOf("db"))))
}
