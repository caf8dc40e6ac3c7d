package provisioner

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// restart puts another process in the place of the Provisioner, which knows nothing of
// what that has done.
func (w *world) restart() {
	w.Provisioner = New(Config{
		Name: DefaultName, ClusterID: "here", Timeout: w.timeout,
		Images: rbdutil.NewImages(w.ceph), Trash: w.trash,
		Secrets: w.client.CoreV1(), Live: w.client.CoreV1(), Index: w.volumes,
		Classes: storagelisters.NewStorageClassLister(w.classes), Nodes: corelisters.NewNodeLister(w.nodes),
		Claims: corelisters.NewPersistentVolumeClaimLister(w.claims), Volumes: corelisters.NewPersistentVolumeLister(w.volumes),
		Events: w.events,
	})
}

// loseSource deletes the source claim, and its volume and image.
func (w *cloneWorld) loseSource(t *testing.T) {
	t.Helper()
	must(t, w.claims.Delete(w.claim))
	must(t, w.Delete(t.Context(), w.released(t, w.volume.DeepCopy())))
	w.unstore(t, w.volume.Name)
}

// A source claim may be deleted at any time, also while nobody knows of the clone.
func TestCloneIsServedAfterItsSourceIsGone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		source map[string]string
		change func(*cloneWorld)
		claim  []func(*corev1.PersistentVolumeClaim)
	}{
		"as large as its source": {},
		"larger, of xfs":         {source: map[string]string{"fsType": "xfs"}, claim: []func(*corev1.PersistentVolumeClaim){requesting("3Gi")}},
		"read-only, of xfs":      {source: map[string]string{"fsType": "xfs"}, claim: []func(*corev1.PersistentVolumeClaim){modes(corev1.ReadOnlyMany)}},
		"of a block volume":      {source: map[string]string{"volumeMode": "Block"}, claim: []func(*corev1.PersistentVolumeClaim){requesting("3Gi"), blockMode}},
		"of a file system to grow": {change: func(w *cloneWorld) {
			w.claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("512Mi")}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCloneWorld(t, test.source, func(w *cloneWorld) {
				if test.change != nil {
					test.change(w)
				}
			})
			claim := claimOf(append([]func(*corev1.PersistentVolumeClaim){ofDB}, test.claim...)...)
			add(t, w.claims, claim)
			want := w.provision(t, optionsFor(classWith(nil), claim)) // and nobody has saved it
			w.loseSource(t)
			w.restart()
			got := w.provision(t, optionsFor(classWith(nil), claim))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("volume (-before +after):\n%s", diff)
			}
			w.wantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
		})
	}
}

// What has a record is finished; before that, the clone needs its source.
func TestCloneThatWasInterruptedNeedsItsSourceUntilItHasARecord(t *testing.T) {
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
			claim := claimOf(ofDB, requesting("3Gi"))
			add(t, w.claims, claim)
			w.failOnce(test.op, test.after, rbdutil.ErrConnectionLost)
			if _, _, err := w.Provision(t.Context(), optionsFor(classWith(nil), claim)); !errors.Is(err, rbdutil.ErrConnectionLost) {
				t.Fatalf("error %v", err)
			}
			w.ceph.Before, w.ceph.After = nil, nil
			must(t, w.claims.Delete(w.claim))
			w.restart()
			volume, state, err := w.Provision(t.Context(), optionsFor(classWith(nil), claim))
			if !test.finished {
				want := "source claim db does not exist in namespace shop: the clone is made when it is there and bound"
				if volume != nil || state != noChange || textOf(err) != want {
					t.Errorf("%v, %v\nwant  %s", state, err, want)
				}
				// It comes back, and the clone is made.
				add(t, w.claims, w.claim)
				volume = w.provision(t, optionsFor(classWith(nil), claim))
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

// Without a source and without a record there is nothing of another's to be had.
func TestCloneIsNotResumedFromAnImageOfOthers(t *testing.T) {
	t.Parallel()
	source := &rbdutil.RecordedSource{SourceVolume: rbdutil.SourceVolume{VolumeName: "pvc-db-uid"}}
	for name, img := range map[string]rbdutil.Image{
		"of another cluster": {Record: rbdutil.Record{Owner: rbdutil.Owner{ClaimUID: "1e7f", Provisioner: DefaultName, ClusterID: "there"}, Source: source}},
		"of another claim":   {Record: rbdutil.Record{Owner: rbdutil.Owner{ClaimUID: "2", Provisioner: DefaultName, ClusterID: "here"}, Source: source}},
		"that is no clone":   {Record: recordFor(1 << 30)},
		"without a record":   {},
		"unreadable":         {Record: rbdutil.Record{Owner: recordFor(0).Owner, Source: source}, RecordError: errors.New("x")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, claim := newWorld(t), claimOf(ofDB)
			add(t, w.claims, claim)
			img.ImageRef, img.Size = imageRef("1e7f"), 1<<30
			w.ceph.Put(img)
			before := w.image(t, img.ImageRef)
			volume, state, err := w.Provision(t.Context(), optionsFor(classWith(nil), claim))
			if volume != nil || state != noChange || err == nil {
				t.Errorf("volume %v, %v, %v", volume, state, err)
			}
			if diff := cmp.Diff(before.Record, w.image(t, img.ImageRef).Record); diff != "" {
				t.Errorf("record (-before +after):\n%s", diff)
			}
		})
	}
}

// So that another cluster in the pool can tell whose snapshot it is.
func TestSourceWithoutRecordIsAdoptedBeforeItsFirstSnapshot(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, nil, func(w *cloneWorld) {
		w.volume.Annotations[annPredecessor] = DefaultName
		_ = w.ceph.Change(imageRef("db-uid"), func(i *rbdutil.Image) { i.Record = rbdutil.Record{} })
	})
	w.failOnce(rbdfake.OpCreateSnapshot, false, rbdutil.ErrTimeout)
	if _, _, err := w.Provision(t.Context(), optionsFor(classWith(nil), claimOf(ofDB))); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Fatalf("error %v", err)
	}
	w.ceph.Before = nil
	want := rbdutil.Record{Owner: rbdutil.Owner{VolumeName: "pvc-db-uid", Provisioner: DefaultName, ClusterID: "here"}}
	if diff := cmp.Diff(want, w.image(t, imageRef("db-uid")).Record); diff != "" {
		t.Errorf("record of the source (-want +got):\n%s", diff)
	}
	w.provision(t, optionsFor(classWith(nil), claimOf(ofDB)))
}
