package expansion

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
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// expansionWorld has a claim shop/www-web-0 that was bound with 1Gi and requests 3Gi now.
type expansionWorld struct {
	*fixture.World
	*Controller
	volume *corev1.PersistentVolume
	claim  *corev1.PersistentVolumeClaim
}

var claimKey = types.NamespacedName{Namespace: "shop", Name: "www-web-0"}

func newExpansionWorld(t *testing.T, changes ...func(*expansionWorld)) *expansionWorld {
	t.Helper()
	w := &expansionWorld{World: fixture.NewWorld(pvindex.Indexers()), claim: fixture.Claim()}
	w.Controller = New(Config{
		Clusters: provisioner.Clusters{
			Provisioner: fixture.Provisioner, ClusterID: fixture.ClusterID, Secrets: w.Client.CoreV1(),
			Classes: storagelisters.NewStorageClassLister(w.Classes),
		},
		Timeout: time.Minute, Images: rbdutil.NewImages(w.Ceph), Client: w.Client.CoreV1(),
		Claims:  corelisters.NewPersistentVolumeClaimLister(w.Claims),
		Volumes: corelisters.NewPersistentVolumeLister(w.Volumes),
		Events:  w.Events,
		Begin:   func() (func(), bool) { return func() {}, true },
		Limiter: workqueue.NewItemExponentialFailureRateLimiter(time.Millisecond, time.Millisecond),
	})
	w.volume = fixture.Provision(t, w.provisioner(), fixture.Options(fixture.Class(nil), w.claim))
	fixture.Bind(w.claim, w.volume)
	w.volume.UID, w.volume.ResourceVersion = "volume", "7"
	w.claim.ResourceVersion = "8"
	w.claim.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: "Other", Status: corev1.ConditionTrue}}
	fixture.Requesting("3Gi")(w.claim)
	for _, change := range changes {
		change(w)
	}
	for _, object := range []runtime.Object{w.claim, w.volume} {
		fixture.Must(t, w.Client.Tracker().Add(object))
	}
	w.observe(t)
	return w
}

// provisioner returns a Provisioner that creates images.
func (w *expansionWorld) provisioner() *provisioner.Provisioner {
	return provisioner.New(provisioner.Config{
		Clusters: w.Clusters, Timeout: time.Minute, Images: rbdutil.NewImages(w.Ceph), Trash: w.Trash, Live: w.Client.CoreV1(),
		Index: w.Volumes, Nodes: corelisters.NewNodeLister(w.Nodes), Claims: w.Config.Claims, Volumes: w.Config.Volumes, Events: w.Events,
	})
}

// observe updates the caches.
func (w *expansionWorld) observe(t *testing.T) {
	t.Helper()
	claim, volume := w.now(t)
	fixture.Add(t, w.Claims, claim)
	fixture.Add(t, w.Volumes, volume)
}

func (w *expansionWorld) now(t *testing.T) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	t.Helper()
	claim, err := w.Client.CoreV1().PersistentVolumeClaims("shop").Get(t.Context(), "www-web-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	volume, err := w.Client.CoreV1().PersistentVolumes().Get(t.Context(), w.volume.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return claim, volume
}

// grown is the state of an expansion.
type grown struct {
	Image, Volume, Claim string
	Conditions           []corev1.PersistentVolumeClaimConditionType
	Events               []string
}

func (w *expansionWorld) grown(t *testing.T) grown {
	t.Helper()
	claim, volume := w.now(t)
	has, capacity := claim.Status.Capacity[corev1.ResourceStorage], volume.Spec.Capacity[corev1.ResourceStorage]
	g := grown{
		Image:  resource.NewQuantity(int64(w.Image(t, fixture.ImageRef("1e7f")).Size), resource.BinarySI).String(),
		Volume: capacity.String(), Claim: has.String(), Events: w.Sent(),
	}
	for _, condition := range claim.Status.Conditions {
		g.Conditions = append(g.Conditions, condition.Type)
	}
	return g
}

const (
	fsPending  = corev1.PersistentVolumeClaimFileSystemResizePending
	isResizing = corev1.PersistentVolumeClaimResizing
	fsEvent    = "Normal FileSystemResizeRequired the image of volume pvc-1e7f has 3Gi: the kubelet expands the file system now if it is mounted, otherwise at the next mount"
	growing    = "Normal Resizing expanding the image of volume pvc-1e7f to 3Gi"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	untouched := grown{Image: "1Gi", Volume: "1Gi", Claim: "1Gi", Conditions: []corev1.PersistentVolumeClaimConditionType{"Other"}}
	pending := grown{
		Image: "3Gi", Volume: "3Gi", Claim: "1Gi", Events: []string{growing, fsEvent},
		Conditions: []corev1.PersistentVolumeClaimConditionType{"Other", fsPending},
	}
	with := func(g grown, change func(*grown)) grown {
		change(&g)
		return g
	}
	for name, test := range map[string]struct {
		change func(*expansionWorld)
		want   grown
	}{
		"a file system": {want: pending},
		"a device": {
			change: func(w *expansionWorld) { fixture.Block(w.claim) },
			want: with(pending, func(g *grown) {
				g.Claim, g.Conditions = "3Gi", []corev1.PersistentVolumeClaimConditionType{"Other"}
				g.Events = []string{growing, "Normal VolumeResizeSuccessful the image of volume pvc-1e7f has 3Gi"}
			}),
		},
		"to no whole MiB": {
			change: func(w *expansionWorld) { fixture.Requesting("3221225471")(w.claim) },
			want: with(pending, func(g *grown) {
				g.Events = []string{"Normal Resizing expanding the image of volume pvc-1e7f to 3221225471", fsEvent}
			}),
		},
		"begun by the controller manager": {
			change: func(w *expansionWorld) {
				w.claim.Status.Conditions = append(w.claim.Status.Conditions, corev1.PersistentVolumeClaimCondition{Type: isResizing, Status: corev1.ConditionTrue})
			},
			want: with(pending, func(g *grown) { g.Events = []string{fsEvent} }),
		},
		"an image that is expanded already": {
			change: func(w *expansionWorld) {
				_ = w.Ceph.Change(fixture.ImageRef("1e7f"), func(i *rbdutil.Image) { i.Size = 3 << 30 })
			},
			want: pending,
		},
		"an image that is larger still": {
			change: func(w *expansionWorld) {
				_ = w.Ceph.Change(fixture.ImageRef("1e7f"), func(i *rbdutil.Image) { i.Size = 5 << 30 })
			},
			want: with(pending, func(g *grown) {
				g.Image, g.Volume = "5Gi", "5Gi"
				g.Events = []string{growing, strings.Replace(fsEvent, "3Gi", "5Gi", 1)}
			}),
		},
		"a volume that has the capacity already": {
			change: func(w *expansionWorld) {
				_ = w.Ceph.Change(fixture.ImageRef("1e7f"), func(i *rbdutil.Image) { i.Size = 3 << 30 })
				w.volume.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("3Gi")}
			},
			want: with(pending, func(g *grown) { g.Events = nil }),
		},
		"a predecessor's volume": {
			change: func(w *expansionWorld) {
				w.volume.Annotations = map[string]string{"rbdProvisionerIdentity": fixture.Provisioner, "pv.kubernetes.io/provisioned-by": fixture.Provisioner}
				w.volume.Spec.StorageClassName = "rbd"
				_ = w.Classes.Add(fixture.Class(nil))
				_ = w.Ceph.Change(fixture.ImageRef("1e7f"), func(i *rbdutil.Image) { i.Record = rbdutil.Record{} })
			},
			want: pending,
		},
		"not a read-only volume": {
			change: func(w *expansionWorld) { fixture.AccessModes(corev1.ReadOnlyMany)(w.claim) },
			want: with(untouched, func(g *grown) {
				const stays = "Warning VolumeResizeFailed a volume with access mode ReadOnlyMany cannot be expanded: nodes cannot expand its file system, and could not mount it afterwards"
				g.Events = []string{stays, stays} // Expand is called twice
			}),
		},
		"not a claim that has what it requests": {change: func(w *expansionWorld) { fixture.Requesting("1Gi")(w.claim) }, want: untouched},
		"not a claim that has more":             {change: func(w *expansionWorld) { fixture.Requesting("512Mi")(w.claim) }, want: untouched},
		"not a claim without volume":            {change: func(w *expansionWorld) { w.claim.Status.Phase = corev1.ClaimPending }, want: untouched},
		"not a claim that is being deleted":     {change: func(w *expansionWorld) { w.claim.DeletionTimestamp = ptr.To(metav1.Now()) }, want: untouched},
		"not the volume of another claim":       {change: func(w *expansionWorld) { w.volume.Spec.ClaimRef.UID = "another" }, want: untouched},
		"not a volume of another provisioner":   {change: func(w *expansionWorld) { w.volume.Annotations["pv.kubernetes.io/provisioned-by"] = "kubernetes.io/rbd" }, want: untouched},
		"not a volume that is being deleted":    {change: func(w *expansionWorld) { w.volume.DeletionTimestamp = ptr.To(metav1.Now()) }, want: untouched},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newExpansionWorld(t, func(w *expansionWorld) {
				if test.change != nil {
					test.change(w)
				}
			})
			for range 2 { // the second call has nothing to do
				if err := w.Expand(t.Context(), claimKey); err != nil {
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

func TestExpandReportsErrorsAndCanBeRetried(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*expansionWorld)
		event  string
	}{
		"no space": {
			change: func(w *expansionWorld) { w.FailOnce(rbdfake.OpUpdate, false, rbdutil.ErrNoSpace) },
			event:  "no space left: free space or raise the quota of pool kube (`ceph df`, `ceph osd pool get-quota`); deleted images are kept in its trash for the trashRetention of their class (`rbd trash ls --long kube`)",
		},
		"no answer": {
			change: func(w *expansionWorld) { w.FailOnce(rbdfake.OpGet, false, rbdutil.ErrTimeout) },
			event:  "Ceph did not answer in time: check the cluster's health (`ceph -s`) and the osd capabilities of client.kube (`ceph auth get client.kube`); will be retried automatically",
		},
		"no answer, but the image is expanded": {
			change: func(w *expansionWorld) { w.FailOnce(rbdfake.OpUpdate, true, rbdutil.ErrTimeout) },
			event:  "Ceph did not answer in time: check the cluster's health (`ceph -s`) and the osd capabilities of client.kube (`ceph auth get client.kube`); will be retried automatically",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newExpansionWorld(t, test.change)
			if err := w.Expand(t.Context(), claimKey); fixture.TextOf(err) != test.event {
				t.Errorf("error %v\nwant  %s", err, test.event)
			}
			if got, want := w.Sent(), []string{growing, "Warning VolumeResizeFailed " + test.event}; !cmp.Equal(got, want) {
				t.Errorf("events (-want +got):\n%s", cmp.Diff(want, got))
			}
			w.Ceph.Before, w.Ceph.After = nil, nil
			w.observe(t)
			if err := w.Expand(t.Context(), claimKey); err != nil {
				t.Fatal(err)
			}
			if got := w.grown(t); got.Volume != "3Gi" || got.Image != "3Gi" {
				t.Errorf("after the retry: %+v", got)
			}
		})
	}
}

func TestExpandFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*expansionWorld)
		err    string
	}{
		"a foreign image": {
			change: func(w *expansionWorld) {
				_ = w.Ceph.Change(fixture.ImageRef("1e7f"), func(i *rbdutil.Image) { i.Record.VolumeName = "another" })
			},
			err: `image has another owner: the metadata of kube/kubernetes-dynamic-pvc-1e7f names claim shop/www-web-0 (volume "another", cluster "here"), not volume "pvc-1e7f" of cluster "here"`,
		},
		"a locked image": {
			change: func(w *expansionWorld) { _ = w.Ceph.Lock(fixture.ImageRef("1e7f")) },
			err: "resize image kube/kubernetes-dynamic-pvc-1e7f: image is locked by maintenance client.4242: remove the lock if it is no longer needed " +
				"(`rbd lock ls kube/kubernetes-dynamic-pvc-1e7f`, `rbd lock rm kube/kubernetes-dynamic-pvc-1e7f ID LOCKER`)",
		},
		"an image that is being migrated": {
			change: func(w *expansionWorld) {
				_ = w.Ceph.Change(fixture.ImageRef("1e7f"), func(i *rbdutil.Image) { i.Features |= 1 << 9 })
			},
			err: "image is being migrated: kube/kubernetes-dynamic-pvc-1e7f: finish the migration (`rbd migration execute kube/kubernetes-dynamic-pvc-1e7f` and " +
				"`rbd migration commit kube/kubernetes-dynamic-pvc-1e7f`), or abort it (`rbd migration abort kube/kubernetes-dynamic-pvc-1e7f`)",
		},
		"an image that is gone": {
			change: func(w *expansionWorld) { w.volume.Spec.RBD.RBDImage += "-lost" },
			err:    "open image kube/kubernetes-dynamic-pvc-1e7f-lost: image not found",
		},
		"a pool that is gone": {
			change: func(w *expansionWorld) { w.volume.Spec.RBD.RBDPool = "lost" },
			err:    "open pool lost: pool not found: the volume cannot be expanded while pool lost does not exist",
		},
		"a volume without image": {
			change: func(w *expansionWorld) { w.volume.Spec.RBD.RBDImage = "" },
			err:    "volume pvc-1e7f lacks monitors or image in its rbd source",
		},
		"more than an image can be": {
			change: func(w *expansionWorld) { fixture.Requesting("2Pi")(w.claim) },
			err:    "invalid request: with objects of 4Mi, kube/kubernetes-dynamic-pvc-1e7f cannot be larger than 1000000Gi",
		},
		"a secret that is gone": {
			change: func(w *expansionWorld) {
				w.volume.Annotations["volume.kubernetes.io/provisioner-deletion-secret-name"] = "lost"
			},
			err: "admin secret ceph/lost does not exist: create it with the output of `ceph auth get-key` under \"key\"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newExpansionWorld(t, test.change)
			if err := w.Expand(t.Context(), claimKey); fixture.TextOf(err) != test.err {
				t.Errorf("error %v\nwant  %s", err, test.err)
			}
			if _, volume := w.now(t); !volume.Spec.Capacity.Storage().Equal(resource.MustParse("1Gi")) {
				t.Errorf("the volume has %v", volume.Spec.Capacity)
			}
			if got := w.Image(t, fixture.ImageRef("1e7f")); got.Size != 1<<30 {
				t.Errorf("the image has %d bytes", got.Size)
			}
		})
	}
}

// Another client may have completed the expansion: the patches must not overwrite that.
func TestExpandPatchesOnlyTheVersionThatItHasRead(t *testing.T) {
	t.Parallel()
	for _, resource := range []string{"persistentvolumeclaims", "persistentvolumes"} {
		w := newExpansionWorld(t)
		var patches []string
		w.Client.PrependReactor("patch", resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
			patch, _ := action.(clienttesting.PatchAction)
			patches = append(patches, string(patch.GetPatch()))
			return true, nil, apierrors.NewConflict(corev1.Resource(resource), patch.GetName(), errors.New("it has changed"))
		})
		if err := w.Expand(t.Context(), claimKey); !apierrors.IsConflict(err) {
			t.Errorf("%s: error %v, want a conflict", resource, err)
		}
		for _, event := range w.Sent() {
			if strings.HasPrefix(event, corev1.EventTypeWarning) {
				t.Errorf("%s: event %s", resource, event)
			}
		}
		for _, patch := range patches {
			if !strings.Contains(patch, `"resourceVersion":"`) || !strings.Contains(patch, `"uid":"`) {
				t.Errorf("%s: patch %s has no resourceVersion and UID", resource, patch)
			}
		}
		if len(patches) == 0 {
			t.Errorf("no patch of %s", resource)
		}
	}
}

func TestRunExpandsTheClaimsOfTheInformer(t *testing.T) {
	t.Parallel()
	w := newExpansionWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	failed := false
	w.Ceph.Before = func(context.Context, string, rbdutil.Cluster, rbdutil.ImageRef) error {
		if !failed { // the first attempt fails, so that a second one is needed
			failed = true
			return rbdutil.ErrTimeout
		}
		return nil
	}
	grew, once := make(chan struct{}), sync.Once{}
	w.Client.PrependReactor("patch", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		once.Do(func() { close(grew) })
		return false, nil, nil
	})
	factory := informers.NewSharedInformerFactory(w.Client, 0)
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	factory.Start(ctx.Done())
	go func() { done <- w.Run(ctx, claims, 1) }()
	select {
	case <-grew:
	case <-time.After(20 * time.Second):
		t.Error("the volume is not expanded")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	factory.Shutdown()
}

func TestExpandChecksTheIdentity(t *testing.T) {
	t.Parallel()
	const rejected = `the volume was created by the rbd-provisioner with identity "rbd-2" (annotation rbdProvisionerIdentity), ` +
		"which this provisioner does not serve: to serve it, start this provisioner with --predecessor-identity=rbd-2"
	for name, test := range map[string]struct {
		flags    []string
		identity string
		want     string
	}{
		"its own name":                      {identity: fixture.Provisioner},
		"another":                           {identity: "rbd-2", want: rejected},
		"another, which is not in the list": {identity: "rbd-2", flags: []string{"rbd-1", "RBD-2"}, want: rejected},
		"another, which is served":          {identity: "rbd-2", flags: []string{"rbd-1", "rbd-2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newExpansionWorld(t, func(w *expansionWorld) {
				w.Clusters.Identities = test.flags
				w.volume.Annotations["rbdProvisionerIdentity"] = test.identity
			})
			if err := w.Expand(t.Context(), claimKey); fixture.TextOf(err) != test.want {
				t.Errorf("error %v\nwant  %s", err, test.want)
			}
			if got := w.Image(t, fixture.ImageRef("1e7f")).Size; (got == 1<<30) != (test.want != "") {
				t.Errorf("the image has %d bytes", got)
			}
			if events := strings.Join(w.Sent(), "\n"); test.want != "" && !strings.Contains(events, test.want) {
				t.Errorf("events %s", events)
			}
		})
	}
}
