package provisioner

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

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// sweptWorld is a world with a Sweeper whose grace is a minute.
type sweptWorld struct {
	*world
	*Sweeper
	clock   *clocktesting.FakeClock
	busy    string // the volume that cannot be reserved
	orphans []int  // their number, as reported after each sweep
}

// UIDs of claims.
const (
	uidOne  = "00000000-0000-4000-8000-000000000001"
	uidTwo  = "00000000-0000-4000-8000-000000000002"
	uidGone = "00000000-0000-4000-8000-00000000dead"
)

func newSweptWorld(t *testing.T) *sweptWorld {
	t.Helper()
	w := &sweptWorld{
		world: newWorld(t),
		clock: clocktesting.NewFakeClock(time.Now()),
	}
	w.Sweeper = NewSweeper(w.Provisioner, SweeperConfig{
		Images: rbdutil.NewImages(w.ceph),
		Claims: corelisters.NewPersistentVolumeClaimLister(w.claims), Volumes: corelisters.NewPersistentVolumeLister(w.volumes),
		Live: w.client.CoreV1(), Grace: time.Minute, Clock: w.clock,
		Reserve:        func(volume string) (func(), bool) { return func() {}, volume != w.busy },
		OrphansChanged: func(n int) { w.orphans = append(w.orphans, n) },
	})
	add(t, w.classes, classWith(nil))
	return w
}

// orphan makes the image of a claim that is not there.
func (w *sweptWorld) orphan(t *testing.T, uid types.UID) rbdutil.ImageRef {
	t.Helper()
	w.provision(t, optionsFor(classWith(nil), claimOf(func(claim *corev1.PersistentVolumeClaim) { claim.UID = uid })))
	return imageRef(uid)
}

// sweepTwice sweeps, and again when the grace is over.
func (w *sweptWorld) sweepTwice(t *testing.T) {
	t.Helper()
	w.Sweep(t.Context())
	w.clock.Step(time.Minute)
	if unripe := w.Sweep(t.Context()); unripe != 0 {
		t.Errorf("%d images are not ripe after the grace", unripe)
	}
}

func (w *sweptWorld) wantImages(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), w.ceph.Names()); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}

func TestSweepRemovesWhatHasNoClaimAndNoVolumeForTheTimeOfTheGrace(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	w.orphan(t, uidGone)
	for range 2 {
		if unripe := w.Sweep(t.Context()); unripe != 1 {
			t.Errorf("%d images are not ripe, want the one", unripe)
		}
		w.wantImages(t, imageRef(uidGone).String())
		w.clock.Step(59 * time.Second / 2)
	}
	w.clock.Step(time.Second)
	if unripe := w.Sweep(t.Context()); unripe != 0 {
		t.Errorf("%d images are not ripe", unripe)
	}
	w.wantImages(t)
}

func TestSweepRemovesHalfMadeImages(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	w.ceph.Put(rbdutil.Image{ImageRef: imageRef(uidOne), Features: rbdutil.Layering})
	if err := w.ceph.LeavePartial(imageRef(uidTwo)); err != nil {
		t.Fatal(err)
	}
	w.sweepTwice(t)
	w.wantImages(t)
}

func TestSweepSpares(t *testing.T) {
	t.Parallel()
	volumeOf := func(name, image string) *corev1.PersistentVolume {
		volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
		volume.Spec.RBD = &corev1.RBDPersistentVolumeSource{RBDPool: "kube", RBDImage: image}
		return volume
	}
	image := imageRef(uidOne).Name
	for name, prepare := range map[string]func(t *testing.T, w *sweptWorld){
		"the image of a claim": func(t *testing.T, w *sweptWorld) {
			add(t, w.claims, claimOf(func(claim *corev1.PersistentVolumeClaim) { claim.UID = uidOne }))
		},
		"the image of a volume, by the volume's name": func(t *testing.T, w *sweptWorld) {
			add(t, w.volumes, volumeOf("pvc-"+uidOne, "renamed"))
		},
		"the image of a volume, by the image's name": func(t *testing.T, w *sweptWorld) {
			add(t, w.volumes, volumeOf("renamed", image))
		},
		"the image of a volume that only the API server knows": func(t *testing.T, w *sweptWorld) {
			if err := w.client.Tracker().Add(volumeOf("pvc-"+uidOne, image)); err != nil {
				t.Fatal(err)
			}
		},
		"the image of a volume that waits to be saved": func(_ *testing.T, w *sweptWorld) { w.busy = "pvc-" + uidOne },
		"all when the API server is silent": func(_ *testing.T, w *sweptWorld) {
			w.client.PrependReactor("get", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, errors.New("no answer")
			})
		},
		"an image that was written to": func(t *testing.T, w *sweptWorld) {
			if err := w.ceph.Write(imageRef(uidOne)); err != nil {
				t.Fatal(err)
			}
		},
		"an image in use": func(t *testing.T, w *sweptWorld) {
			w.change(t, func(img *rbdutil.Image) { img.Watchers = []string{"10.0.0.9:0/1"} })
		},
		"an image with snapshots": func(t *testing.T, w *sweptWorld) {
			w.change(t, func(img *rbdutil.Image) { img.Snapshots = []string{"keep"} })
		},
		"an image of another cluster": func(t *testing.T, w *sweptWorld) {
			w.change(t, func(img *rbdutil.Image) { img.Record.ClusterID = "elsewhere" })
		},
		"an image of another provisioner": func(t *testing.T, w *sweptWorld) {
			w.change(t, func(img *rbdutil.Image) { img.Record.Provisioner = "example.com/rbd" })
		},
		"an image of the predecessor": func(t *testing.T, w *sweptWorld) {
			w.change(t, func(img *rbdutil.Image) { img.Record = rbdutil.Record{} })
		},
		"an image in a pool of somebody else's class": func(t *testing.T, w *sweptWorld) {
			class := classWith(nil)
			class.Provisioner = "example.com/rbd"
			add(t, w.classes, class)
		},
		"an image in a pool of a class with a mistake": func(t *testing.T, w *sweptWorld) {
			add(t, w.classes, classWith(map[string]string{"fsType": "ntfs"}))
		},
		"all when there is no key": func(t *testing.T, w *sweptWorld) {
			if err := w.client.CoreV1().Secrets("ceph").Delete(t.Context(), "admin", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		"all when the pool cannot be listed": func(_ *testing.T, w *sweptWorld) {
			w.ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
				if op == rbdfake.OpList {
					return rbdutil.ErrTimeout
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSweptWorld(t)
			w.orphan(t, uidOne)
			prepare(t, w)
			for range 2 {
				w.sweepTwice(t)
				w.wantImages(t, "kube/"+image)
			}
		})
	}
}

func (w *sweptWorld) change(t *testing.T, change func(*rbdutil.Image)) {
	t.Helper()
	if err := w.ceph.Change(imageRef(uidOne), change); err != nil {
		t.Fatal(err)
	}
}

func TestSweepSparesNamesThatAreNotOurs(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	w.ceph.Put(rbdutil.Image{ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "by-hand"}})
	w.sweepTwice(t)
	w.wantImages(t, "kube/by-hand")
}

// A claim that comes back to life, as the caches lag behind, starts its grace anew.
func TestSweepForgetsASuspicionThatWasWrong(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	w.orphan(t, uidOne)
	claim := claimOf(func(claim *corev1.PersistentVolumeClaim) { claim.UID = uidOne })
	w.Sweep(t.Context())
	w.clock.Step(time.Minute)
	add(t, w.claims, claim)
	w.Sweep(t.Context())
	if err := w.claims.Delete(claim); err != nil {
		t.Fatal(err)
	}
	if unripe := w.Sweep(t.Context()); unripe != 1 {
		t.Errorf("%d images are not ripe, want the one that was suspected before", unripe)
	}
	w.wantImages(t, imageRef(uidOne).String())
}

// A pool that cannot be listed now and then must not keep its orphans for ever.
func TestSweepRemembersSuspicionsOfAPoolThatCannotBeListed(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	w.orphan(t, uidOne)
	w.Sweep(t.Context())
	w.clock.Step(time.Minute)
	w.ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpList {
			return rbdutil.ErrTimeout
		}
		return nil
	}
	if unripe := w.Sweep(t.Context()); unripe != 1 {
		t.Errorf("%d images are to be looked at soon, want the one", unripe)
	}
	w.ceph.Before = nil
	w.Sweep(t.Context())
	w.wantImages(t)
}

// Of what cannot change, no more than one look is taken: there may be thousands.
func TestSweepLooksAtOthersImagesOnce(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	w.orphan(t, uidOne)
	w.change(t, func(img *rbdutil.Image) { img.Record = rbdutil.Record{} })
	if err := w.ceph.Write(w.orphan(t, uidTwo)); err != nil {
		t.Fatal(err)
	}
	looks := 0
	w.ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpGet {
			looks++
		}
		return nil
	}
	for range 3 {
		w.sweepTwice(t)
	}
	if looks != 6 {
		t.Errorf("%d looks at the owners, the holders and the snapshots of two images", looks)
	}
}

// Two classes of one pool are one place to look at.
func TestSweepListsEachPoolOnce(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	twin, data := classWith(map[string]string{"fsType": "xfs"}), classWith(map[string]string{"pool": "data"})
	twin.Name, data.Name = "twin", "data"
	add(t, w.classes, twin, data)
	listed := map[string]int{}
	w.ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, ref rbdutil.ImageRef) error {
		if op == rbdfake.OpList {
			listed[ref.Pool]++
		}
		return nil
	}
	w.Sweep(t.Context())
	if diff := cmp.Diff(map[string]int{"kube": 1, "data": 1}, listed); diff != "" {
		t.Errorf("lists (-want +got):\n%s", diff)
	}
}

// Nor does it matter for the trash what the grace is.
func TestSweepHasTheTrashOfEachPoolEmptied(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	w.Grace = 0
	w.orphan(t, uidOne)
	twin, foreign := classWith(map[string]string{"fsType": "xfs"}), classWith(map[string]string{"pool": "foreign"})
	twin.Name, foreign.Name, foreign.Provisioner = "twin", "foreign", "example.com/rbd"
	add(t, w.classes, twin, foreign)
	volumeIn := func(pool, provisioner string, annotations bool) *corev1.PersistentVolume {
		class := classWith(map[string]string{"pool": pool})
		class.Name = "gone" // and never there
		volume := w.provision(t, optionsFor(class, claimOf(func(claim *corev1.PersistentVolumeClaim) { claim.UID = types.UID(pool) })))
		if !annotations {
			volume.Annotations = map[string]string{}
		}
		volume.Annotations[annProvisionedBy] = provisioner
		w.ceph.DeletePool(pool)
		w.ceph.AddPool(pool)
		return volume
	}
	for _, pool := range []string{"of-volume", "of-others-volume", "of-nobody-knows-whose"} {
		w.ceph.AddPool(pool)
	}
	add(t, w.volumes,
		volumeIn("of-volume", DefaultName, true),
		volumeIn("of-others-volume", "example.com/rbd", true),
		volumeIn("of-nobody-knows-whose", DefaultName, false))
	if unripe := w.Sweep(t.Context()); unripe != 0 {
		t.Errorf("%d images are not ripe, though none ever is", unripe)
	}
	if diff := cmp.Diff([]string{"kube", "of-volume"}, w.trash.now); diff != "" {
		t.Errorf("pools whose trash is emptied (-want +got):\n%s", diff)
	}
	w.wantImages(t, imageRef(uidOne).String())
}

func TestSweeperRunsUntilItIsStopped(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	w.orphan(t, uidOne)
	removed := make(chan struct{}, 1)
	w.ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
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
	// Seen after the long pause, removed after the short one.
	for !w.clock.HasWaiters() {
		time.Sleep(time.Millisecond)
	}
	w.clock.Step(time.Minute)
	<-removed
	cancel()
	<-ended
	w.wantImages(t)
}
