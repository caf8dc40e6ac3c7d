package cleanup

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// UIDs of claims.
const (
	uidOne  = "00000000-0000-4000-8000-000000000001"
	uidTwo  = "00000000-0000-4000-8000-000000000002"
	uidGone = "00000000-0000-4000-8000-00000000dead"
)

// orphanWorld is a fixture.World with an OrphanCollector whose Grace is a minute.
type orphanWorld struct {
	*fixture.World
	*OrphanCollector
	provisioner *provisioner.Provisioner
	clock       *clocktesting.FakeClock
	busy        string // the volume that cannot be reserved
	orphans     []int  // their number after each collection
}

func newOrphanWorld(t *testing.T) *orphanWorld {
	t.Helper()
	outer := newWorld(t)
	w := &orphanWorld{World: outer.World, provisioner: outer.Provisioner, clock: clocktesting.NewFakeClock(time.Now())}
	w.OrphanCollector = NewOrphanCollector(OrphanCollectorConfig{
		Clusters: outer.clusters(), Timeout: time.Minute, Images: rbdutil.NewImages(w.Ceph), Trash: w.Trash,
		Claims: corelisters.NewPersistentVolumeClaimLister(w.Claims), Volumes: corelisters.NewPersistentVolumeLister(w.Volumes),
		Live: w.Client.CoreV1(), Events: w.Events, Grace: time.Minute, Clock: w.clock,
		Reserve:        func(volume string) (func(), bool) { return func() {}, volume != w.busy },
		OrphansChanged: func(n int) { w.orphans = append(w.orphans, n) },
	})
	fixture.Add(t, w.Classes, fixture.Class(nil))
	return w
}

// orphan creates the image of a claim that does not exist.
func (w *orphanWorld) orphan(t *testing.T, uid types.UID) rbdutil.ImageRef {
	t.Helper()
	fixture.Provision(t, w.provisioner, fixture.Options(fixture.Class(nil), fixture.Claim(func(claim *corev1.PersistentVolumeClaim) { claim.UID = uid })))
	return fixture.ImageRef(uid)
}

// collectTwice collects, and again when the Grace has passed.
func (w *orphanWorld) collectTwice(t *testing.T) {
	t.Helper()
	w.Collect(t.Context())
	w.clock.Step(time.Minute)
	if pending := w.Collect(t.Context()); pending != 0 {
		t.Errorf("%d candidates are pending after the Grace", pending)
	}
}

func TestCollectRemovesAnOrphanAfterTheGrace(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	w.orphan(t, uidGone)
	for range 2 {
		if pending := w.Collect(t.Context()); pending != 1 {
			t.Errorf("%d candidates are pending, want 1", pending)
		}
		w.WantImages(t, fixture.ImageRef(uidGone).String())
		w.clock.Step(59 * time.Second / 2)
	}
	w.clock.Step(time.Second)
	if pending := w.Collect(t.Context()); pending != 0 {
		t.Errorf("%d candidates are pending", pending)
	}
	w.WantImages(t)
}

// The claims are listed before the scan of snapshots. An image that is created during the scan
// must not be compared with that list.
func TestCollectNeverRemovesAnOrphanThatItHasJustFound(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	w.orphan(t, uidGone)
	w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpGet { // of the scan, which takes longer than the Grace
			w.clock.Step(2 * time.Minute)
		}
		return nil
	}
	if pending := w.Collect(t.Context()); pending != 1 {
		t.Errorf("%d candidates are pending, want 1", pending)
	}
	w.WantImages(t, fixture.ImageRef(uidGone).String())
}

func TestCollectRemovesPartialImages(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	w.Ceph.Put(rbdutil.Image{ImageRef: fixture.ImageRef(uidOne), Features: rbdutil.Layering})
	if err := w.Ceph.LeavePartial(fixture.ImageRef(uidTwo)); err != nil {
		t.Fatal(err)
	}
	w.collectTwice(t)
	w.WantImages(t)
}

func TestCollectKeeps(t *testing.T) {
	t.Parallel()
	volumeOf := func(name, image string) *corev1.PersistentVolume {
		volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
		volume.Spec.RBD = &corev1.RBDPersistentVolumeSource{RBDPool: "kube", RBDImage: image}
		return volume
	}
	image := fixture.ImageRef(uidOne).Name
	for name, prepare := range map[string]func(t *testing.T, w *orphanWorld){
		"the image of a claim": func(t *testing.T, w *orphanWorld) {
			fixture.Add(t, w.Claims, fixture.Claim(func(claim *corev1.PersistentVolumeClaim) { claim.UID = uidOne }))
		},
		"the image of a volume, by the volume's name": func(t *testing.T, w *orphanWorld) {
			fixture.Add(t, w.Volumes, volumeOf("pvc-"+uidOne, "renamed"))
		},
		"the image of a volume, by the image's name": func(t *testing.T, w *orphanWorld) {
			fixture.Add(t, w.Volumes, volumeOf("renamed", image))
		},
		"the image of a volume that only the API server has": func(t *testing.T, w *orphanWorld) {
			if err := w.Client.Tracker().Add(volumeOf("pvc-"+uidOne, image)); err != nil {
				t.Fatal(err)
			}
		},
		"the image of a volume that is not saved yet": func(_ *testing.T, w *orphanWorld) { w.busy = "pvc-" + uidOne },
		"all if the API server does not answer": func(_ *testing.T, w *orphanWorld) {
			w.Client.PrependReactor("get", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, errors.New("no answer")
			})
		},
		"an image that was written to": func(t *testing.T, w *orphanWorld) {
			if err := w.Ceph.Write(fixture.ImageRef(uidOne)); err != nil {
				t.Fatal(err)
			}
		},
		"an image in use": func(t *testing.T, w *orphanWorld) {
			w.change(t, func(img *rbdutil.Image) { img.Watchers = []string{"10.0.0.9:0/1"} })
		},
		"an image with snapshots": func(t *testing.T, w *orphanWorld) {
			w.change(t, func(img *rbdutil.Image) { img.Snapshots = []string{"keep"} })
		},
		"an image of another cluster": func(t *testing.T, w *orphanWorld) {
			w.change(t, func(img *rbdutil.Image) { img.Record.ClusterID = "elsewhere" })
		},
		"an image of another provisioner": func(t *testing.T, w *orphanWorld) {
			w.change(t, func(img *rbdutil.Image) { img.Record.Provisioner = "example.com/rbd" })
		},
		"an image of the predecessor": func(t *testing.T, w *orphanWorld) {
			w.change(t, func(img *rbdutil.Image) { img.Record = rbdutil.Record{} })
		},
		"an image in a pool of another provisioner's class": func(t *testing.T, w *orphanWorld) {
			class := fixture.Class(nil)
			class.Provisioner = "example.com/rbd"
			fixture.Add(t, w.Classes, class)
		},
		"an image in a pool of a class with a mistake": func(t *testing.T, w *orphanWorld) {
			fixture.Add(t, w.Classes, fixture.Class(map[string]string{"fsType": "ntfs"}))
		},
		"all if there is no key": func(t *testing.T, w *orphanWorld) {
			if err := w.Client.CoreV1().Secrets("ceph").Delete(t.Context(), "admin", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		"all if the pool cannot be listed": func(_ *testing.T, w *orphanWorld) {
			w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
				if op == rbdfake.OpList {
					return rbdutil.ErrTimeout
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newOrphanWorld(t)
			w.orphan(t, uidOne)
			prepare(t, w)
			for range 2 {
				w.collectTwice(t)
				w.WantImages(t, "kube/"+image)
			}
		})
	}
}

func (w *orphanWorld) change(t *testing.T, change func(*rbdutil.Image)) {
	t.Helper()
	if err := w.Ceph.Change(fixture.ImageRef(uidOne), change); err != nil {
		t.Fatal(err)
	}
}

func TestCollectIgnoresForeignNames(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	w.Ceph.Put(rbdutil.Image{ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "by-hand"}})
	w.collectTwice(t)
	w.WantImages(t, "kube/by-hand")
}

// The Grace starts again if the claim was in the cache in between.
func TestCollectRestartsTheGraceOfAnImageWithAClaim(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	w.orphan(t, uidOne)
	claim := fixture.Claim(func(claim *corev1.PersistentVolumeClaim) { claim.UID = uidOne })
	w.Collect(t.Context())
	w.clock.Step(time.Minute)
	fixture.Add(t, w.Claims, claim)
	w.Collect(t.Context())
	if err := w.Claims.Delete(claim); err != nil {
		t.Fatal(err)
	}
	if pending := w.Collect(t.Context()); pending != 1 {
		t.Errorf("%d candidates are pending, want 1", pending)
	}
	w.WantImages(t, fixture.ImageRef(uidOne).String())
}

// The Grace continues while a pool cannot be listed.
func TestCollectRemembersCandidatesOfAPoolThatCannotBeListed(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	w.orphan(t, uidOne)
	w.Collect(t.Context())
	w.clock.Step(time.Minute)
	w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpList {
			return rbdutil.ErrTimeout
		}
		return nil
	}
	if pending := w.Collect(t.Context()); pending != 1 {
		t.Errorf("%d candidates are pending, want 1", pending)
	}
	w.Ceph.Before = nil
	w.Collect(t.Context())
	w.WantImages(t)
}

// Foreign images are read only once, because there may be thousands.
func TestCollectReadsForeignImagesOnce(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	w.orphan(t, uidOne)
	w.change(t, func(img *rbdutil.Image) { img.Record = rbdutil.Record{} })
	if err := w.Ceph.Write(w.orphan(t, uidTwo)); err != nil {
		t.Fatal(err)
	}
	reads := 0
	w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpGet {
			reads++
		}
		return nil
	}
	for range 3 {
		w.collectTwice(t)
	}
	if reads != 6 {
		t.Errorf("%d reads of the owners, the holders and the snapshots of two images", reads)
	}
}

// Two classes may have the same pool.
func TestCollectListsEachPoolOnce(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	twin, data := fixture.Class(map[string]string{"fsType": "xfs"}), fixture.Class(map[string]string{"pool": "data"})
	twin.Name, data.Name = "twin", "data"
	fixture.Add(t, w.Classes, twin, data)
	listed := map[string]int{}
	w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, ref rbdutil.ImageRef) error {
		if op == rbdfake.OpList {
			listed[ref.Pool]++
		}
		return nil
	}
	w.Collect(t.Context())
	if diff := cmp.Diff(map[string]int{"kube": 1, "data": 1}, listed); diff != "" {
		t.Errorf("lists (-want +got):\n%s", diff)
	}
}

// The trash is cleaned also if Grace is 0.
func TestCollectCleansTheTrashOfEachPool(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	w.Grace = 0
	w.orphan(t, uidOne)
	twin, foreign := fixture.Class(map[string]string{"fsType": "xfs"}), fixture.Class(map[string]string{"pool": "foreign"})
	twin.Name, foreign.Name, foreign.Provisioner = "twin", "foreign", "example.com/rbd"
	fixture.Add(t, w.Classes, twin, foreign)
	volumeIn := func(pool, provisioner string, annotations bool) *corev1.PersistentVolume {
		class := fixture.Class(map[string]string{"pool": pool})
		class.Name = "gone" // it does not exist
		volume := fixture.Provision(t, w.provisioner, fixture.Options(class, fixture.Claim(func(claim *corev1.PersistentVolumeClaim) { claim.UID = types.UID(pool) })))
		if !annotations {
			volume.Annotations = map[string]string{}
		}
		volume.Annotations["pv.kubernetes.io/provisioned-by"] = provisioner
		w.Ceph.DeletePool(pool)
		w.Ceph.AddPool(pool)
		return volume
	}
	for _, pool := range []string{"of-volume", "of-others-volume", "of-incomplete-volume"} {
		w.Ceph.AddPool(pool)
	}
	fixture.Add(t, w.Volumes,
		volumeIn("of-volume", fixture.Provisioner, true),
		volumeIn("of-others-volume", "example.com/rbd", true),
		volumeIn("of-incomplete-volume", fixture.Provisioner, false))
	if pending := w.Collect(t.Context()); pending != 0 {
		t.Errorf("%d candidates are pending, want none", pending)
	}
	if diff := cmp.Diff([]string{"kube", "of-volume"}, w.Trash.Now); diff != "" {
		t.Errorf("pools whose trash is cleaned (-want +got):\n%s", diff)
	}
	w.WantImages(t, fixture.ImageRef(uidOne).String())
}

func TestOrphanCollectorRunsUntilItIsStopped(t *testing.T) {
	t.Parallel()
	w := newOrphanWorld(t)
	w.orphan(t, uidOne)
	removed := make(chan struct{}, 1)
	w.Ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpMoveToTrash {
			removed <- struct{}{}
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	for step, pause := range []time.Duration{time.Minute, 10 * time.Minute} {
		for !w.clock.HasWaiters() {
			time.Sleep(time.Millisecond)
		}
		if step == 1 {
			w.orphan(t, uidTwo)
		}
		w.clock.Step(pause)
		if step == 0 {
			<-removed
		}
	}
	// Found after the long interval, removed after the short one.
	for !w.clock.HasWaiters() {
		time.Sleep(time.Millisecond)
	}
	w.clock.Step(time.Minute)
	<-removed
	cancel()
	<-ended
	w.WantImages(t)
}
