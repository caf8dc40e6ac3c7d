package provisioner

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

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// What has data, is of others, or is needed by anybody is no garbage, whatever its record
// says. The image of the first row shows that the others would be removed otherwise.
func TestSweepSparesWhatIsNotSurelyGarbage(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, w *sweptWorld) { must(t, w.ceph.Write(imageRef(uidOne))) }
	record := func(text string) func(t *testing.T, w *sweptWorld) {
		return func(t *testing.T, w *sweptWorld) { must(t, w.ceph.SetRecord(imageRef(uidOne), text)) }
	}
	volume := func(volume *corev1.PersistentVolume) func(t *testing.T, w *sweptWorld) {
		return func(t *testing.T, w *sweptWorld) { add(t, w.volumes, volume) }
	}
	named := func(name string) func(*rbdutil.Owner) { return func(o *rbdutil.Owner) { o.VolumeName = name } }
	owned := func(change func(*rbdutil.Owner)) func(t *testing.T, w *sweptWorld) {
		return func(t *testing.T, w *sweptWorld) {
			w.change(t, func(i *rbdutil.Image) { change(&i.Record.Owner) })
		}
	}
	type prepare = []func(t *testing.T, w *sweptWorld)
	for name, test := range map[string]struct {
		prepare prepare
		orphan  bool // it is counted, and reported in an event
		removed bool
	}{
		"nothing speaks for it":                     {removed: true},
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
		"a volume of ceph-csi shows it":             {prepare: prepare{volume(csiVolume("by-hand", imageRef(uidOne).Name, "kube", ""))}},
		"a volume that was migrated shows it":       {prepare: prepare{volume(csiVolume("by-hand", "mig_mons-0_image-"+uidOne+"_6b756265", "", ""))}},
		"the API server knows the volume of its record": {prepare: prepare{owned(named("restored")), func(t *testing.T, w *sweptWorld) {
			w.store(t, rbdVolume("restored", "kube", imageRef(uidOne).Name))
		}}},
		"the API server knows the claim of its record": {prepare: prepare{func(t *testing.T, w *sweptWorld) {
			must(t, w.client.Tracker().Add(claimOf(func(c *corev1.PersistentVolumeClaim) { c.UID = uidOne })))
		}}},
		"the API server knows another claim of that name": {removed: true, prepare: prepare{func(t *testing.T, w *sweptWorld) {
			must(t, w.client.Tracker().Add(claimOf(func(c *corev1.PersistentVolumeClaim) { c.UID = uidTwo })))
		}}},
		"the API server does not know about its claim": {prepare: prepare{func(_ *testing.T, w *sweptWorld) {
			w.client.PrependReactor("get", "persistentvolumeclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewInternalError(errors.New("etcd is slow"))
			})
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSweptWorld(t)
			w.orphan(t, uidOne)
			for _, prepare := range test.prepare {
				prepare(t, w)
			}
			w.sent()
			for range 2 {
				w.sweepTwice(t)
			}
			if test.removed {
				w.wantImages(t)
			} else {
				w.wantImages(t, imageRef(uidOne).String())
			}
			w.wantOrphans(t, test.orphan)
		})
	}
}

// wantOrphans wants the image of uidOne, or none, to be counted and reported once.
func (w *sweptWorld) wantOrphans(t *testing.T, is bool) {
	t.Helper()
	want, events := 0, []string(nil)
	if is {
		want = 1
		image := imageRef(uidOne).String()
		events = []string{"Warning OrphanedImage image " + image + " has neither claim nor volume, and is kept: image holds data: "}
	}
	if len(w.orphans) == 0 || w.orphans[len(w.orphans)-1] != want {
		t.Errorf("orphans after each sweep: %v, want %d in the end", w.orphans, want)
	}
	got := w.sent()
	if !slices.EqualFunc(got, events, strings.HasPrefix) {
		t.Errorf("events %q, want %q", got, events)
	}
}

// A person's image, made of one of our snapshots, with a name that begins like ours.
func TestSweepSparesNamesWithoutAWholeUID(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	source := w.orphan(t, uidTwo)
	add(t, w.claims, claimOf(func(c *corev1.PersistentVolumeClaim) { c.UID = uidTwo }))
	rescue := rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-src-rescue"}
	const snapshot = "rbd-provisioner-for-kubernetes-dynamic-pvc-src-rescue"
	must(t, w.ceph.CreateSnapshot(t.Context(), rbdutil.Cluster{}, source, snapshot))
	must(t, w.ceph.Clone(t.Context(), rbdutil.Cluster{}, source, snapshot, rescue, rbdutil.Layout{Features: rbdutil.Layering}))
	w.ceph.Put(rbdutil.Image{ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-" + uidOne + "-old"}})
	w.ceph.Put(rbdutil.Image{ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-"}})
	before := w.ceph.Names()
	for range 2 {
		w.sweepTwice(t)
	}
	w.wantImages(t, before...)
}

// A clone that was not finished has its source's record, which names the volume of the source.
func TestSweepRemovesTheBeginningOfACloneOfALiveVolume(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	source := w.orphan(t, uidTwo)
	w.store(t, rbdVolume("pvc-"+uidTwo, "kube", source.Name))
	add(t, w.volumes, rbdVolume("pvc-"+uidTwo, "kube", source.Name))
	clone := imageRef(uidOne)
	snapshot := "rbd-provisioner-for-" + clone.Name
	must(t, w.ceph.CreateSnapshot(t.Context(), rbdutil.Cluster{}, source, snapshot))
	must(t, w.ceph.Clone(t.Context(), rbdutil.Cluster{}, source, snapshot, clone, rbdutil.Layout{Features: rbdutil.Layering}))
	img, err := w.ceph.Get(t.Context(), rbdutil.Cluster{}, clone)
	if must(t, err); img.Owner().ClaimUID != uidTwo {
		t.Fatalf("the clone does not have the record of its source: %+v", img.Record)
	}
	w.sweepTwice(t)
	w.wantImages(t, source.String())
}

// A clone that was finished shows somebody's data, and nobody may have another copy.
func TestSweepKeepsAFinishedClone(t *testing.T) {
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
			w := newSweptWorld(t)
			w.cloneOfTwo(t, uidOne)
			if change != nil {
				w.change(t, change)
			}
			w.sent()
			for range 2 {
				w.sweepTwice(t)
			}
			w.wantImages(t, imageRef(uidOne).String(), imageRef(uidTwo).String())
			w.wantOrphans(t, true)
		})
	}
}

// cloneOfTwo makes the clone of a claim that is not there, of the image of uidTwo, which
// has a claim.
func (w *sweptWorld) cloneOfTwo(t *testing.T, uid string) {
	t.Helper()
	source := w.orphan(t, uidTwo)
	add(t, w.claims, claimOf(func(c *corev1.PersistentVolumeClaim) { c.UID = uidTwo }))
	owner := recordFor(0).Owner
	owner.ClaimUID, owner.VolumeName = uid, "pvc-"+uid
	_, err := rbdutil.NewImages(w.ceph).Ensure(t.Context(), rbdutil.Cluster{}, rbdutil.ImageSpec{
		ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-" + uid}, Layout: rbdutil.Layout{Features: rbdutil.Layering},
		Size: 1 << 30, Owner: owner,
		Source: &rbdutil.Source{ImageRef: source, Precondition: rbdutil.Precondition{Owner: rbdutil.Owner{VolumeName: "pvc-" + uidTwo, ClusterID: "here"}}},
	})
	must(t, err)
}

// Two clusters share a pool, and the other completes its image between look and move.
func TestSweepSparesAnImageThatAnotherCompletesMeanwhile(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	w.ceph.Put(rbdutil.Image{ImageRef: imageRef(uidOne), Features: rbdutil.Layering})
	w.ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpMoveToTrash {
			w.ceph.Before = nil
			w.change(t, func(i *rbdutil.Image) {
				i.Size, i.Record.Owner = 1<<30, rbdutil.Owner{ClaimUID: uidOne, Provisioner: DefaultName, ClusterID: "there"}
			})
			must(t, w.ceph.Write(imageRef(uidOne)))
		}
		return nil
	}
	w.sweepTwice(t)
	if w.ceph.Before != nil {
		t.Fatal("nothing was tried")
	}
	w.wantImages(t, imageRef(uidOne).String())
	w.sweepTwice(t)
	w.wantImages(t, imageRef(uidOne).String())
}

// The name of the volume is reserved for as long as anything is decided on.
func TestSweepReservesTheVolumeUntilTheImageIsGone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ uid string }{"an image": {uidOne}, "the beginning of an image": {uidGone}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSweptWorld(t)
			w.orphan(t, uidOne)
			w.ceph.Put(rbdutil.Image{ImageRef: imageRef(uidGone), Features: rbdutil.Layering})
			reserved := ""
			w.Reserve = func(volume string) (func(), bool) {
				reserved = volume
				return func() { reserved = "" }, true
			}
			w.ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, ref rbdutil.ImageRef) error {
				if want := "pvc-" + test.uid; op == rbdfake.OpMoveToTrash && ref.Name == imageRef("").Name+test.uid && reserved != want {
					t.Errorf("%q is reserved, want %q", reserved, want)
				}
				return nil
			}
			w.client.PrependReactor("get", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
				if got := action.(clienttesting.GetAction).GetName(); got != reserved {
					t.Errorf("the API server is asked for %s while %q is reserved", got, reserved)
				}
				return false, nil, nil
			})
			w.sweepTwice(t)
			w.wantImages(t)
			if reserved != "" {
				t.Errorf("%s is reserved for ever", reserved)
			}
		})
	}
}

func TestSweepGoesOnAfterAnImageThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err  error
		goOn bool
	}{
		"a damaged image":       {errors.New("rados: ret=-5"), true},
		"an image in use":       {rbdutil.ErrInProgress, true},
		"a pool without answer": {rbdutil.ErrTimeout, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSweptWorld(t)
			w.orphan(t, uidOne)
			w.orphan(t, uidTwo)
			w.Sweep(t.Context())
			w.ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, ref rbdutil.ImageRef) error {
				if op == rbdfake.OpGet && (ref == imageRef(uidOne) || !test.goOn) {
					return test.err
				}
				return nil
			}
			w.clock.Step(time.Minute)
			w.Sweep(t.Context())
			w.ceph.Before = nil
			if test.goOn {
				w.wantImages(t, imageRef(uidOne).String())
			} else {
				w.wantImages(t, imageRef(uidOne).String(), imageRef(uidTwo).String())
			}
			// What was not removed needs no second grace.
			w.Sweep(t.Context())
			w.wantImages(t)
		})
	}
}

// A finished clone's snapshot is its own; that of another cluster's clone is theirs.
func TestSweepLeavesSnapshotsOfAnotherCluster(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		owner rbdutil.Owner
		stays bool
	}{
		"ours":                        {rbdutil.Owner{ClaimUID: uidTwo, VolumeName: "pvc-" + uidTwo, Provisioner: DefaultName, ClusterID: "here"}, false},
		"another cluster's":           {rbdutil.Owner{ClaimUID: uidTwo, VolumeName: "pvc-" + uidTwo, Provisioner: DefaultName, ClusterID: "there"}, true},
		"of an image with no record":  {rbdutil.Owner{}, true},
		"of an image with no cluster": {rbdutil.Owner{VolumeName: "pvc-" + uidTwo}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSweptWorld(t)
			add(t, w.claims, claimOf(func(c *corev1.PersistentVolumeClaim) { c.UID = uidTwo }))
			source := imageRef(uidTwo)
			w.ceph.Put(rbdutil.Image{ImageRef: source, Size: 1 << 30, Record: rbdutil.Record{Owner: test.owner}})
			snapshot := "rbd-provisioner-for-" + imageRef(uidGone).Name
			must(t, w.ceph.CreateSnapshot(t.Context(), rbdutil.Cluster{}, source, snapshot))
			for range 2 {
				w.sweepTwice(t)
			}
			want := []string{snapshot}
			if !test.stays {
				want = []string{}
			}
			if diff := cmp.Diff(want, append([]string{}, w.image(t, source).Snapshots...)); diff != "" {
				t.Errorf("snapshots (-want +got):\n%s", diff)
			}
		})
	}
}
