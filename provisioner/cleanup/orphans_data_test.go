package cleanup

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// An image that holds data, is foreign or is needed is kept, whatever its record. The
// first row shows that the others would be removed otherwise.
func TestCollectKeepsWhatIsNotCertainlyGarbage(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, w *orphanWorld) { fixture.Must(t, w.Ceph.Write(fixture.ImageRef(uidOne))) }
	record := func(text string) func(t *testing.T, w *orphanWorld) {
		return func(t *testing.T, w *orphanWorld) { fixture.Must(t, w.Ceph.SetRecord(fixture.ImageRef(uidOne), text)) }
	}
	volume := func(volume *corev1.PersistentVolume) func(t *testing.T, w *orphanWorld) {
		return func(t *testing.T, w *orphanWorld) { fixture.Add(t, w.Volumes, volume) }
	}
	named := func(name string) func(*rbdutil.Owner) { return func(o *rbdutil.Owner) { o.VolumeName = name } }
	owned := func(change func(*rbdutil.Owner)) func(t *testing.T, w *orphanWorld) {
		return func(t *testing.T, w *orphanWorld) {
			w.change(t, func(i *rbdutil.Image) { change(&i.Record.Owner) })
		}
	}
	type prepare = []func(t *testing.T, w *orphanWorld)
	for name, test := range map[string]struct {
		prepare prepare
		orphan  bool // counted, and reported in an event
		removed bool
	}{
		"an empty image without references":         {removed: true},
		"it was written to":                         {prepare: prepare{write}, orphan: true},
		"it was written to, as another volume":      {prepare: prepare{write, owned(named("restored"))}, orphan: true},
		"it was written to, and has half a record":  {prepare: prepare{write, owned(named(""))}, orphan: true},
		"it was written to, and has no record":      {prepare: prepare{write, record(`{}`)}},
		"its record is of another cluster":          {prepare: prepare{owned(func(o *rbdutil.Owner) { o.ClusterID = "there" })}},
		"its record is of no cluster":               {prepare: prepare{owned(func(o *rbdutil.Owner) { o.ClusterID = "" })}},
		"its record is of another provisioner":      {prepare: prepare{owned(func(o *rbdutil.Owner) { o.Provisioner = "example.com/rbd" })}},
		"its record is of another claim":            {prepare: prepare{owned(func(o *rbdutil.Owner) { o.ClaimUID = uidTwo })}},
		"its record names a volume alone":           {prepare: prepare{record(`{"volumeName":"pvc-` + uidOne + `"}`)}},
		"its record is no JSON":                     {prepare: prepare{record(uidOne)}},
		"its record has a field of a later version": {prepare: prepare{record(`{"claimUID":"` + uidOne + `","provisioner":"ceph.com/rbd","clusterID":"here","keep":true}`)}},
		"a volume of ceph-csi shows it":             {prepare: prepare{volume(fixture.CSIVolume("by-hand", fixture.ImageRef(uidOne).Name, "kube", ""))}},
		"a volume that was migrated shows it":       {prepare: prepare{volume(fixture.CSIVolume("by-hand", "mig_mons-0_image-"+uidOne+"_6b756265", "", ""))}},
		"the API server knows the volume of its record": {prepare: prepare{owned(named("restored")), func(t *testing.T, w *orphanWorld) {
			w.Store(t, fixture.RBDVolume("restored", "kube", fixture.ImageRef(uidOne).Name))
		}}},
		"the API server knows the claim of its record": {prepare: prepare{func(t *testing.T, w *orphanWorld) {
			fixture.Must(t, w.Client.Tracker().Add(fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.UID = uidOne })))
		}}},
		"the API server knows another claim of that name": {removed: true, prepare: prepare{func(t *testing.T, w *orphanWorld) {
			fixture.Must(t, w.Client.Tracker().Add(fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.UID = uidTwo })))
		}}},
		"the API server does not know about its claim": {prepare: prepare{func(_ *testing.T, w *orphanWorld) {
			w.Client.PrependReactor("get", "persistentvolumeclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewInternalError(errors.New("etcd is slow"))
			})
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newOrphanWorld(t)
			w.orphan(t, uidOne)
			for _, prepare := range test.prepare {
				prepare(t, w)
			}
			w.Sent()
			for range 2 {
				w.collectTwice(t)
			}
			if test.removed {
				w.WantImages(t)
			} else {
				w.WantImages(t, fixture.ImageRef(uidOne).String())
			}
			w.wantOrphans(t, test.orphan)
		})
	}
}

// wantOrphans fails the test unless the image of uidOne, or none, was counted and reported
// once.
func (w *orphanWorld) wantOrphans(t *testing.T, is bool) {
	t.Helper()
	want, events := 0, []string(nil)
	if is {
		want = 1
		image := fixture.ImageRef(uidOne).String()
		events = []string{"Warning OrphanedImage image " + image + " has neither claim nor volume and is kept: image holds data: "}
	}
	if len(w.orphans) == 0 || w.orphans[len(w.orphans)-1] != want {
		t.Errorf("orphans after each collection: %v, want %d at the end", w.orphans, want)
	}
	got := w.Sent()
	if !slices.EqualFunc(got, events, strings.HasPrefix) {
		t.Errorf("events %q, want %q", got, events)
	}
}

// An administrator's clone of one of our snapshots, with the prefix of our names.
func TestCollectIgnoresNamesWithoutACompleteUID(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	source := w.orphan(t, uidTwo)
	fixture.Add(t, w.Claims, fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.UID = uidTwo }))
	rescue := rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-src-rescue"}
	const snapshot = "rbd-provisioner-for-kubernetes-dynamic-pvc-src-rescue"
	fixture.Must(t, w.Ceph.CreateSnapshot(t.Context(), rbdutil.Cluster{}, source, snapshot))
	fixture.Must(t, w.Ceph.Clone(t.Context(), rbdutil.Cluster{}, source, snapshot, rescue, rbdutil.Layout{Features: rbdutil.Layering}))
	w.Ceph.Put(rbdutil.Image{ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-" + uidOne + "-old"}})
	w.Ceph.Put(rbdutil.Image{ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-"}})
	before := w.Ceph.Names()
	for range 2 {
		w.collectTwice(t)
	}
	w.WantImages(t, before...)
}

// An incomplete clone has the record of its source, which names the volume of the source.
func TestCollectRemovesAnIncompleteCloneOfALiveVolume(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	source := w.orphan(t, uidTwo)
	w.Store(t, fixture.RBDVolume("pvc-"+uidTwo, "kube", source.Name))
	fixture.Add(t, w.Volumes, fixture.RBDVolume("pvc-"+uidTwo, "kube", source.Name))
	clone := fixture.ImageRef(uidOne)
	snapshot := "rbd-provisioner-for-" + clone.Name
	fixture.Must(t, w.Ceph.CreateSnapshot(t.Context(), rbdutil.Cluster{}, source, snapshot))
	fixture.Must(t, w.Ceph.Clone(t.Context(), rbdutil.Cluster{}, source, snapshot, clone, rbdutil.Layout{Features: rbdutil.Layering}))
	img, err := w.Ceph.Get(t.Context(), rbdutil.Cluster{}, clone)
	if fixture.Must(t, err); img.Owner().ClaimUID != uidTwo {
		t.Fatalf("the clone does not have the record of its source: %+v", img.Record)
	}
	w.collectTwice(t)
	w.WantImages(t, source.String())
}

// A complete clone holds data, perhaps the only copy.
func TestCollectKeepsACompleteClone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*rbdutil.Image){
		"as it is":                nil,
		"of a deleted source":     func(i *rbdutil.Image) { i.Parent = nil },
		"that has grown since":    func(i *rbdutil.Image) { i.Size *= 2 },
		"that lived as another":   func(i *rbdutil.Image) { i.Record.VolumeName = "restored" },
		"with its own copy of it": func(i *rbdutil.Image) { i.Record.Flatten, i.Parent = true, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newOrphanWorld(t)
			w.cloneOfTwo(t, uidOne)
			if change != nil {
				w.change(t, change)
			}
			w.Sent()
			for range 2 {
				w.collectTwice(t)
			}
			w.WantImages(t, fixture.ImageRef(uidOne).String(), fixture.ImageRef(uidTwo).String())
			w.wantOrphans(t, true)
		})
	}
}

// cloneOfTwo creates a clone of the image of uidTwo for a claim that does not exist. uidTwo
// has a claim.
func (w *orphanWorld) cloneOfTwo(t *testing.T, uid string) {
	t.Helper()
	source := w.orphan(t, uidTwo)
	fixture.Add(t, w.Claims, fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.UID = uidTwo }))
	owner := fixture.Record(0).Owner
	owner.ClaimUID, owner.VolumeName = uid, "pvc-"+uid
	_, err := rbdutil.NewImages(w.Ceph).Ensure(t.Context(), rbdutil.Cluster{}, rbdutil.ImageSpec{
		ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-" + uid}, Layout: rbdutil.Layout{Features: rbdutil.Layering},
		Size: 1 << 30, Owner: owner,
		Source: &rbdutil.Source{ImageRef: source, Precondition: rbdutil.Precondition{Owner: rbdutil.Owner{VolumeName: "pvc-" + uidTwo, ClusterID: "here"}}},
	})
	fixture.Must(t, err)
}

// Another cluster in the same pool completes its image between our check and the move.
func TestCollectKeepsAnImageThatIsCompletedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	w.Ceph.Put(rbdutil.Image{ImageRef: fixture.ImageRef(uidOne), Features: rbdutil.Layering})
	w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpMoveToTrash {
			w.Ceph.Before = nil
			w.change(t, func(i *rbdutil.Image) {
				i.Size, i.Record.Owner = 1<<30, rbdutil.Owner{ClaimUID: uidOne, Provisioner: fixture.Provisioner, ClusterID: "there"}
			})
			fixture.Must(t, w.Ceph.Write(fixture.ImageRef(uidOne)))
		}
		return nil
	}
	w.collectTwice(t)
	if w.Ceph.Before != nil {
		t.Fatal("no move was attempted")
	}
	w.WantImages(t, fixture.ImageRef(uidOne).String())
	w.collectTwice(t)
	w.WantImages(t, fixture.ImageRef(uidOne).String())
}

// The name of the volume is reserved from the first check to the move.
func TestCollectReservesTheVolumeUntilTheImageIsGone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ uid string }{"an image": {uidOne}, "an incomplete image": {uidGone}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newOrphanWorld(t)
			w.orphan(t, uidOne)
			w.Ceph.Put(rbdutil.Image{ImageRef: fixture.ImageRef(uidGone), Features: rbdutil.Layering})
			reserved := ""
			w.Reserve = func(volume string) (func(), bool) {
				reserved = volume
				return func() { reserved = "" }, true
			}
			w.Ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, ref rbdutil.ImageRef) error {
				if want := "pvc-" + test.uid; op == rbdfake.OpMoveToTrash && ref.Name == fixture.ImageRef("").Name+test.uid && reserved != want {
					t.Errorf("%q is reserved, want %q", reserved, want)
				}
				return nil
			}
			w.Client.PrependReactor("get", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
				if got := action.(clienttesting.GetAction).GetName(); got != reserved {
					t.Errorf("GET of volume %s while %q is reserved", got, reserved)
				}
				return false, nil, nil
			})
			w.collectTwice(t)
			w.WantImages(t)
			if reserved != "" {
				t.Errorf("%s is still reserved", reserved)
			}
		})
	}
}

func TestCollectContinuesAfterAnImageThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err       error
		continues bool
	}{
		"a damaged image":       {errors.New("rados: ret=-5"), true},
		"an image in use":       {rbdutil.ErrInProgress, true},
		"a pool without answer": {rbdutil.ErrTimeout, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newOrphanWorld(t)
			w.orphan(t, uidOne)
			w.orphan(t, uidTwo)
			w.Collect(t.Context())
			w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, ref rbdutil.ImageRef) error {
				if op == rbdfake.OpGet && (ref == fixture.ImageRef(uidOne) || !test.continues) {
					return test.err
				}
				return nil
			}
			w.clock.Step(time.Minute)
			w.Collect(t.Context())
			w.Ceph.Before = nil
			if test.continues {
				w.WantImages(t, fixture.ImageRef(uidOne).String())
			} else {
				w.WantImages(t, fixture.ImageRef(uidOne).String(), fixture.ImageRef(uidTwo).String())
			}
			// The Grace of the other image does not start again.
			w.Collect(t.Context())
			w.WantImages(t)
		})
	}
}

// Snapshots of another cluster's images are kept.
func TestCollectKeepsSnapshotsOfAnotherCluster(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		owner rbdutil.Owner
		stays bool
	}{
		"ours":                        {rbdutil.Owner{ClaimUID: uidTwo, VolumeName: "pvc-" + uidTwo, Provisioner: fixture.Provisioner, ClusterID: "here"}, false},
		"another cluster's":           {rbdutil.Owner{ClaimUID: uidTwo, VolumeName: "pvc-" + uidTwo, Provisioner: fixture.Provisioner, ClusterID: "there"}, true},
		"of an image with no record":  {rbdutil.Owner{}, true},
		"of an image with no cluster": {rbdutil.Owner{VolumeName: "pvc-" + uidTwo}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newOrphanWorld(t)
			fixture.Add(t, w.Claims, fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.UID = uidTwo }))
			source := fixture.ImageRef(uidTwo)
			w.Ceph.Put(rbdutil.Image{ImageRef: source, Size: 1 << 30, Record: rbdutil.Record{Owner: test.owner}})
			snapshot := "rbd-provisioner-for-" + fixture.ImageRef(uidGone).Name
			fixture.Must(t, w.Ceph.CreateSnapshot(t.Context(), rbdutil.Cluster{}, source, snapshot))
			for range 2 {
				w.collectTwice(t)
			}
			want := []string{snapshot}
			if !test.stays {
				want = []string{}
			}
			if diff := cmp.Diff(want, append([]string{}, w.Image(t, source).Snapshots...)); diff != "" {
				t.Errorf("snapshots (-want +got):\n%s", diff)
			}
		})
	}
}
