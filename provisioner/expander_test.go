package provisioner

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// growWorld has a claim shop/www-web-0 that was bound with 1Gi and asks for 3Gi now.
type growWorld struct {
	*world
	*Expander
	volume *corev1.PersistentVolume
	claim  *corev1.PersistentVolumeClaim
}

var grownKey = types.NamespacedName{Namespace: "shop", Name: "www-web-0"}

func newGrowWorld(t *testing.T, changes ...func(*growWorld)) *growWorld {
	t.Helper()
	w := &growWorld{world: newWorld(t), claim: claimOf()}
	w.volume = w.provision(t, optionsFor(classWith(nil), w.claim))
	w.volume.UID, w.volume.ResourceVersion = "volume", "7"
	w.volume.Annotations[annProvisionedBy] = DefaultName
	w.volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "shop", Name: "www-web-0", UID: w.claim.UID}
	w.claim.ResourceVersion = "8"
	w.claim.Spec.VolumeName = w.volume.Name
	w.claim.Status = corev1.PersistentVolumeClaimStatus{
		Phase: corev1.ClaimBound, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
		Conditions: []corev1.PersistentVolumeClaimCondition{{Type: "Other", Status: corev1.ConditionTrue}},
	}
	requesting("3Gi")(w.claim)
	for _, change := range changes {
		change(w)
	}
	for _, object := range []runtime.Object{w.claim, w.volume} {
		if err := w.client.Tracker().Add(object); err != nil {
			t.Fatal(err)
		}
	}
	w.Expander = NewExpander(w.Provisioner, ExpanderConfig{
		Images: rbdutil.NewImages(w.ceph), Client: w.client.CoreV1(),
		Begin:   func() (func(), bool) { return func() {}, true },
		Limiter: workqueue.NewItemExponentialFailureRateLimiter(time.Millisecond, time.Millisecond),
	})
	w.observe(t)
	return w
}

// observe brings the caches up to date.
func (w *growWorld) observe(t *testing.T) {
	t.Helper()
	claim, volume := w.now(t)
	add(t, w.claims, claim)
	add(t, w.volumes, volume)
}

func (w *growWorld) now(t *testing.T) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	t.Helper()
	claim, err := w.client.CoreV1().PersistentVolumeClaims("shop").Get(t.Context(), "www-web-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	volume, err := w.client.CoreV1().PersistentVolumes().Get(t.Context(), w.volume.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return claim, volume
}

// grown is where an expansion has come to.
type grown struct {
	Image, Volume, Claim string
	Conditions           []corev1.PersistentVolumeClaimConditionType
	Events               []string
}

func (w *growWorld) grown(t *testing.T) grown {
	t.Helper()
	claim, volume := w.now(t)
	has, capacity := claim.Status.Capacity[corev1.ResourceStorage], volume.Spec.Capacity[corev1.ResourceStorage]
	g := grown{
		Image:  resource.NewQuantity(int64(w.image(t, imageRef("1e7f")).Size), resource.BinarySI).String(),
		Volume: capacity.String(), Claim: has.String(), Events: w.sent(),
	}
	for _, condition := range claim.Status.Conditions {
		g.Conditions = append(g.Conditions, condition.Type)
	}
	return g
}

const (
	fsPending  = corev1.PersistentVolumeClaimFileSystemResizePending
	isResizing = corev1.PersistentVolumeClaimResizing
	handedOver = "Normal FileSystemResizeRequired the image of volume pvc-1e7f has 3Gi: the kubelet grows the file system, where it is mounted or when it is mounted next"
	growing    = "Normal Resizing growing the image of volume pvc-1e7f to 3Gi"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	untouched := grown{Image: "1Gi", Volume: "1Gi", Claim: "1Gi", Conditions: []corev1.PersistentVolumeClaimConditionType{"Other"}}
	pending := grown{
		Image: "3Gi", Volume: "3Gi", Claim: "1Gi", Events: []string{growing, handedOver},
		Conditions: []corev1.PersistentVolumeClaimConditionType{"Other", fsPending},
	}
	with := func(g grown, change func(*grown)) grown {
		change(&g)
		return g
	}
	for name, test := range map[string]struct {
		change func(*growWorld)
		want   grown
	}{
		"a file system": {want: pending},
		"a device": {
			change: func(w *growWorld) { blockMode(w.claim) },
			want: with(pending, func(g *grown) {
				g.Claim, g.Conditions = "3Gi", []corev1.PersistentVolumeClaimConditionType{"Other"}
				g.Events = []string{growing, "Normal VolumeResizeSuccessful the image of volume pvc-1e7f has 3Gi"}
			}),
		},
		"to no whole MiB": {
			change: func(w *growWorld) { requesting("3221225471")(w.claim) },
			want: with(pending, func(g *grown) {
				g.Events = []string{"Normal Resizing growing the image of volume pvc-1e7f to 3221225471", handedOver}
			}),
		},
		"what the controller manager has begun": {
			change: func(w *growWorld) {
				w.claim.Status.Conditions = append(w.claim.Status.Conditions, corev1.PersistentVolumeClaimCondition{Type: isResizing, Status: corev1.ConditionTrue})
			},
			want: with(pending, func(g *grown) { g.Events = []string{handedOver} }),
		},
		"an image that has grown already": {
			change: func(w *growWorld) {
				_ = w.ceph.Change(imageRef("1e7f"), func(i *rbdutil.Image) { i.Size = 3 << 30 })
			},
			want: pending,
		},
		"an image that is larger still": {
			change: func(w *growWorld) {
				_ = w.ceph.Change(imageRef("1e7f"), func(i *rbdutil.Image) { i.Size = 5 << 30 })
			},
			want: with(pending, func(g *grown) {
				g.Image, g.Volume = "5Gi", "5Gi"
				g.Events = []string{growing, strings.Replace(handedOver, "3Gi", "5Gi", 1)}
			}),
		},
		"a volume that says so already": {
			change: func(w *growWorld) {
				_ = w.ceph.Change(imageRef("1e7f"), func(i *rbdutil.Image) { i.Size = 3 << 30 })
				w.volume.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("3Gi")}
			},
			want: with(pending, func(g *grown) { g.Events = nil }),
		},
		"a predecessor's volume": {
			change: func(w *growWorld) {
				w.volume.Annotations = map[string]string{annPredecessor: DefaultName, annProvisionedBy: DefaultName}
				w.volume.Spec.StorageClassName = "rbd"
				_ = w.classes.Add(classWith(nil))
				_ = w.ceph.Change(imageRef("1e7f"), func(i *rbdutil.Image) { i.Record = rbdutil.Record{} })
			},
			want: pending,
		},
		"nothing of what nobody may write to": {
			change: func(w *growWorld) { modes(corev1.ReadOnlyMany)(w.claim) },
			want: with(untouched, func(g *grown) {
				const stays = "Warning VolumeResizeFailed a volume with access mode ReadOnlyMany stays as it is: nobody could grow its file system, and no node could mount it then"
				g.Events = []string{stays, stays} // it was looked at twice
			}),
		},
		"nothing, of who has what he asks for": {change: func(w *growWorld) { requesting("1Gi")(w.claim) }, want: untouched},
		"nothing, of who has more":             {change: func(w *growWorld) { requesting("512Mi")(w.claim) }, want: untouched},
		"nothing of a claim without volume":    {change: func(w *growWorld) { w.claim.Status.Phase = corev1.ClaimPending }, want: untouched},
		"nothing of a claim that goes":         {change: func(w *growWorld) { w.claim.DeletionTimestamp = ptr.To(metav1.Now()) }, want: untouched},
		"nothing of another's volume":          {change: func(w *growWorld) { w.volume.Spec.ClaimRef.UID = "another" }, want: untouched},
		"nothing of another provisioner's":     {change: func(w *growWorld) { w.volume.Annotations[annProvisionedBy] = "kubernetes.io/rbd" }, want: untouched},
		"nothing of a volume that goes":        {change: func(w *growWorld) { w.volume.DeletionTimestamp = ptr.To(metav1.Now()) }, want: untouched},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newGrowWorld(t, func(w *growWorld) {
				if test.change != nil {
					test.change(w)
				}
			})
			for range 2 { // the second time, there is nothing left to do
				if err := w.Expand(t.Context(), grownKey); err != nil {
					t.Fatal(err)
				}
				w.observe(t)
			}
			if diff := cmp.Diff(test.want, w.grown(t)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestExpandSaysWhyNot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*growWorld)
		event  string
	}{
		"no space": {
			change: func(w *growWorld) { w.failOnce(rbdfake.OpUpdate, false, rbdutil.ErrNoSpace) },
			event:  "no space left: free space or raise the quota of pool kube (`ceph df`, `ceph osd pool get-quota`); deleted images are kept in its trash for the trashRetention of their class (`rbd trash ls --long kube`)",
		},
		"no answer": {
			change: func(w *growWorld) { w.failOnce(rbdfake.OpGet, false, rbdutil.ErrTimeout) },
			event:  "Ceph did not answer in time: check the cluster's health (`ceph -s`); it is tried again by itself",
		},
		"no answer, though it is done": {
			change: func(w *growWorld) { w.failOnce(rbdfake.OpUpdate, true, rbdutil.ErrTimeout) },
			event:  "Ceph did not answer in time: check the cluster's health (`ceph -s`); it is tried again by itself",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newGrowWorld(t, test.change)
			if err := w.Expand(t.Context(), grownKey); textOf(err) != test.event {
				t.Errorf("error %v\nwant  %s", err, test.event)
			}
			if got, want := w.sent(), []string{growing, "Warning VolumeResizeFailed " + test.event}; !cmp.Equal(got, want) {
				t.Errorf("events (-want +got):\n%s", cmp.Diff(want, got))
			}
			w.ceph.Before, w.ceph.After = nil, nil
			w.observe(t)
			if err := w.Expand(t.Context(), grownKey); err != nil {
				t.Fatal(err)
			}
			if got := w.grown(t); got.Volume != "3Gi" || got.Image != "3Gi" {
				t.Errorf("in the end: %+v", got)
			}
		})
	}
}

func TestExpandRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*growWorld)
		err    string
	}{
		"an image of another's": {
			change: func(w *growWorld) {
				_ = w.ceph.Change(imageRef("1e7f"), func(i *rbdutil.Image) { i.Record.VolumeName = "another" })
			},
			err: `image has another owner: the metadata of kube/kubernetes-dynamic-pvc-1e7f names claim shop/www-web-0 (volume "another", cluster "here"), not volume "pvc-1e7f" of cluster "here"`,
		},
		"an image that somebody has locked": {
			change: func(w *growWorld) { _ = w.ceph.Lock(imageRef("1e7f")) },
			err: "resize image kube/kubernetes-dynamic-pvc-1e7f: image is locked by maintenance client.4242: remove the lock if nobody needs it " +
				"(`rbd lock ls kube/kubernetes-dynamic-pvc-1e7f`, `rbd lock rm kube/kubernetes-dynamic-pvc-1e7f ID LOCKER`)",
		},
		"an image that is being migrated": {
			change: func(w *growWorld) {
				_ = w.ceph.Change(imageRef("1e7f"), func(i *rbdutil.Image) { i.Features |= 1 << 9 })
			},
			err: "image is being migrated: kube/kubernetes-dynamic-pvc-1e7f: end the migration (`rbd migration execute kube/kubernetes-dynamic-pvc-1e7f` and " +
				"`rbd migration commit kube/kubernetes-dynamic-pvc-1e7f`, or `rbd migration abort kube/kubernetes-dynamic-pvc-1e7f`)",
		},
		"an image that is gone": {
			change: func(w *growWorld) { w.volume.Spec.RBD.RBDImage += "-lost" },
			err:    "open image kube/kubernetes-dynamic-pvc-1e7f-lost: image not found",
		},
		"a pool that is gone": {
			change: func(w *growWorld) { w.volume.Spec.RBD.RBDPool = "lost" },
			err:    "open pool lost: pool not found: the volume cannot grow before pool lost is back",
		},
		"a volume without image": {
			change: func(w *growWorld) { w.volume.Spec.RBD.RBDImage = "" },
			err:    "volume pvc-1e7f names no monitors or no image",
		},
		"more than an image can be": {
			change: func(w *growWorld) { requesting("2Pi")(w.claim) },
			err:    "invalid request: with objects of 4Mi, kube/kubernetes-dynamic-pvc-1e7f cannot be larger than 1000000Gi",
		},
		"a secret that is gone": {
			change: func(w *growWorld) { w.volume.Annotations[annDeletionSecretName] = "lost" },
			err:    "admin secret ceph/lost does not exist: create it with the output of `ceph auth get-key` under \"key\"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newGrowWorld(t, test.change)
			if err := w.Expand(t.Context(), grownKey); textOf(err) != test.err {
				t.Errorf("error %v\nwant  %s", err, test.err)
			}
			if _, volume := w.now(t); !volume.Spec.Capacity.Storage().Equal(resource.MustParse("1Gi")) {
				t.Errorf("the volume has %v", volume.Spec.Capacity)
			}
			if got := w.image(t, imageRef("1e7f")); got.Size != 1<<30 {
				t.Errorf("the image has %d bytes", got.Size)
			}
		})
	}
}

// Whoever has changed the claim since may have finished: nothing is said over him.
func TestExpandPatchesWhatItHasSeen(t *testing.T) {
	t.Parallel()
	for _, resource := range []string{"persistentvolumeclaims", "persistentvolumes"} {
		w := newGrowWorld(t)
		var patches []string
		w.client.PrependReactor("patch", resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
			patch, _ := action.(clienttesting.PatchAction)
			patches = append(patches, string(patch.GetPatch()))
			return true, nil, apierrors.NewConflict(corev1.Resource(resource), patch.GetName(), errors.New("it has changed"))
		})
		if err := w.Expand(t.Context(), grownKey); !apierrors.IsConflict(err) {
			t.Errorf("%s: error %v, want a conflict", resource, err)
		}
		for _, event := range w.sent() {
			if strings.HasPrefix(event, corev1.EventTypeWarning) {
				t.Errorf("%s: event %s", resource, event)
			}
		}
		for _, patch := range patches {
			if !strings.Contains(patch, `"resourceVersion":"`) || !strings.Contains(patch, `"uid":"`) {
				t.Errorf("%s: patch %s does not say of which version it is", resource, patch)
			}
		}
		if len(patches) == 0 {
			t.Errorf("no patch of %s", resource)
		}
	}
}

func TestRunExpandsWhatTheInformerTellsOf(t *testing.T) {
	t.Parallel()
	w := newGrowWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	failed := false
	w.ceph.Before = func(context.Context, string, rbdutil.Cluster, rbdutil.ImageRef) error {
		if !failed { // the first attempt, so that there has to be a second one
			failed = true
			return rbdutil.ErrTimeout
		}
		return nil
	}
	grew, once := make(chan struct{}), sync.Once{}
	w.client.PrependReactor("patch", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		once.Do(func() { close(grew) })
		return false, nil, nil
	})
	factory := informers.NewSharedInformerFactory(w.client, 0)
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	factory.Start(ctx.Done())
	go func() { done <- w.Run(ctx, claims, 1) }()
	select {
	case <-grew:
	case <-time.After(20 * time.Second):
		t.Error("the volume does not grow")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	factory.Shutdown()
}
