package provisioner

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// cloneWorld has a bound claim shop/db of 1Gi with its volume and image, which may be
// changed before anybody sees them.
type cloneWorld struct {
	*world
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
	node   *corev1.Node
}

func newCloneWorld(t *testing.T, class map[string]string, changes ...func(*cloneWorld)) *cloneWorld {
	t.Helper()
	w := &cloneWorld{world: newWorld(t), node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}}
	w.claim = claimOf(func(c *corev1.PersistentVolumeClaim) { c.Name, c.UID = "db", "db-uid" })
	if class["volumeMode"] == "Block" {
		w.claim.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
		class = nil
	}
	w.volume = w.provision(t, optionsFor(classWith(class), w.claim))
	w.volume.Annotations[annProvisionedBy] = DefaultName
	w.volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "shop", Name: "db", UID: "db-uid"}
	w.claim.Spec.VolumeName = w.volume.Name
	w.claim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: w.volume.Spec.Capacity}
	for _, change := range changes {
		change(w)
	}
	add(t, w.claims, w.claim)
	add(t, w.volumes, w.volume)
	add(t, w.nodes, w.node)
	return w
}

func ofDB(c *corev1.PersistentVolumeClaim) {
	c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "db"}
	c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "db"}
}

func modes(modes ...corev1.PersistentVolumeAccessMode) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes = modes }
}

func blockMode(c *corev1.PersistentVolumeClaim) {
	c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
}

func TestCloneOfAClaim(t *testing.T) {
	t.Parallel()
	const preResize = "volume.alpha.kubernetes.io/pre-resize-capacity"
	for name, test := range map[string]struct {
		source  map[string]string
		class   map[string]string
		change  func(*cloneWorld)
		claim   []func(*corev1.PersistentVolumeClaim)
		fsType  string
		options []string
		pre     string
	}{
		"as large as its source": {},
		"in the newer field alone": {claim: []func(*corev1.PersistentVolumeClaim){func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource, c.Spec.DataSourceRef.APIGroup, c.Spec.DataSourceRef.Namespace = nil, ptr.To(""), ptr.To("shop")
		}}},
		"larger, so that its file system has to grow": {claim: []func(*corev1.PersistentVolumeClaim){requesting("3Gi")}, pre: "1Gi"},
		"of a source whose file system is to grow yet": {pre: "512Mi", change: func(w *cloneWorld) {
			w.claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("512Mi")}
		}},
		"of xfs, which is known by its UUID": {source: map[string]string{"fsType": "xfs"}, fsType: "xfs", options: []string{"nouuid"}},
		"of another file system than the class says": {source: map[string]string{"fsType": "xfs"}, class: map[string]string{"fsType": "ext4"},
			fsType: "xfs", options: []string{"nouuid"}},
		"read-only": {claim: []func(*corev1.PersistentVolumeClaim){modes(corev1.ReadOnlyMany)}, options: []string{"ro"}},
		"read-only, of xfs": {source: map[string]string{"fsType": "xfs"}, claim: []func(*corev1.PersistentVolumeClaim){modes(corev1.ReadOnlyMany)},
			fsType: "xfs", options: []string{"nouuid", "ro"}},
		"for one writer or many readers": {claim: []func(*corev1.PersistentVolumeClaim){modes(corev1.ReadWriteOnce, corev1.ReadOnlyMany)}},
		"of a block volume":              {source: map[string]string{"volumeMode": "Block"}, claim: []func(*corev1.PersistentVolumeClaim){requesting("3Gi"), blockMode}},
		"of a mounted volume": {change: func(w *cloneWorld) {
			w.node.Status.VolumesInUse = []corev1.UniqueVolumeName{"kubernetes.io/rbd/kube:kubernetes-dynamic-pvc-db-uid"}
		}},
		"in another pool": {class: map[string]string{"pool": "data"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCloneWorld(t, test.source, func(w *cloneWorld) {
				if test.change != nil {
					test.change(w)
				}
			})
			claim := claimOf(append([]func(*corev1.PersistentVolumeClaim){ofDB}, test.claim...)...)
			volume := w.provision(t, optionsFor(classWith(test.class), claim))
			img := w.image(t, rbdutil.ImageRef{Pool: volume.Spec.RBD.RBDPool, Name: "kubernetes-dynamic-pvc-1e7f"})
			if img.Parent == nil || img.Parent.Name != "rbd-provisioner-for-kubernetes-dynamic-pvc-1e7f" || img.Features != rbdutil.Layering {
				t.Errorf("image %+v", img)
			}
			if img.Owner().ClaimUID != "1e7f" || img.Owner().VolumeName != "pvc-1e7f" {
				t.Errorf("its owner is %+v", img.Owner())
			}
			if request := claim.Spec.Resources.Requests[corev1.ResourceStorage]; img.Size != uint64(request.Value()) {
				t.Errorf("size %d, want %s", img.Size, request.String())
			}
			if volume.Spec.RBD.FSType != test.fsType || volume.Annotations[preResize] != test.pre {
				t.Errorf("fsType %q, want %q; %s %q, want %q", volume.Spec.RBD.FSType, test.fsType, preResize, volume.Annotations[preResize], test.pre)
			}
			if diff := cmp.Diff(test.options, volume.Spec.MountOptions); diff != "" {
				t.Errorf("mount options (-want +got):\n%s", diff)
			}
			again := w.provision(t, optionsFor(classWith(test.class), claim))
			if diff := cmp.Diff(volume, again); diff != "" {
				t.Errorf("asked again (-first +second):\n%s", diff)
			}
		})
	}
}

func TestMountOptionsOfTheClassStay(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, map[string]string{"fsType": "xfs"})
	class := classWith(nil)
	class.MountOptions = []string{"nouuid", "noatime"}
	volume := w.provision(t, optionsFor(class, claimOf(ofDB, modes(corev1.ReadOnlyMany))))
	if diff := cmp.Diff([]string{"nouuid", "noatime", "ro"}, volume.Spec.MountOptions); diff != "" {
		t.Errorf("mount options (-want +got):\n%s", diff)
	}
	if len(class.MountOptions) != 2 {
		t.Errorf("the class has got mount options %q", class.MountOptions)
	}
}

func TestClonesThatCannotBe(t *testing.T) {
	t.Parallel()
	held := func(w *cloneWorld) {
		w.node.Status.VolumesAttached = []corev1.AttachedVolume{{Name: "kubernetes.io/rbd/kube:kubernetes-dynamic-pvc-db-uid"}}
	}
	const until = ": a clone that is ReadOnlyMany, or annotated with rbd-provisioner.ceph.com/clone-unmounted, is made when no node has its source mounted"
	for name, test := range map[string]struct {
		source map[string]string
		class  map[string]string
		change func(*cloneWorld)
		claim  []func(*corev1.PersistentVolumeClaim)
		err    string
	}{
		"of what is not there": {
			claim: []func(*corev1.PersistentVolumeClaim){func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource.Name = "lost" }},
			err:   "source claim lost does not exist in namespace shop: the clone is made when it is there and bound",
		},
		"of what another namespace has": {
			claim: []func(*corev1.PersistentVolumeClaim){func(c *corev1.PersistentVolumeClaim) { c.Namespace = "elsewhere" }},
			err:   "source claim db does not exist in namespace elsewhere: the clone is made when it is there and bound",
		},
		"of what is pending": {
			change: func(w *cloneWorld) { w.claim.Status.Phase = corev1.ClaimPending },
			err:    "source claim db is not bound yet: the clone is made when it is",
		},
		"of what has lost its volume": {
			change: func(w *cloneWorld) { w.claim.Status.Phase = corev1.ClaimLost },
			err:    "source claim db is not bound yet: the clone is made when it is",
		},
		"of what is being deleted": {
			change: func(w *cloneWorld) { w.claim.DeletionTimestamp = ptr.To(metav1.Now()) },
			err:    "source claim db is being deleted",
		},
		"of what has no volume": {
			change: func(w *cloneWorld) { w.claim.Spec.VolumeName = "lost" },
			err:    `read volume lost of source claim db: persistentvolume "lost" not found`,
		},
		"of another's volume": {
			change: func(w *cloneWorld) { w.volume.Spec.ClaimRef.UID = "another" },
			err:    "volume pvc-db-uid of source claim db is bound to another",
		},
		"of another provisioner's volume": {
			change: func(w *cloneWorld) { w.volume.Annotations[annProvisionedBy] = "kubernetes.io/rbd" },
			err:    "volume pvc-db-uid of source claim db is not of this provisioner, which clones its own volumes only",
		},
		"of what is no image": {
			change: func(w *cloneWorld) { w.volume.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{} },
			err:    "volume pvc-db-uid of source claim db is not of this provisioner, which clones its own volumes only",
		},
		"a file system of a device": {
			source: map[string]string{"volumeMode": "Block"},
			err:    "source claim db has volumeMode Block, and a clone must have the same",
		},
		"a device of a file system": {
			claim: []func(*corev1.PersistentVolumeClaim){blockMode},
			err:   "source claim db has volumeMode Filesystem, and a clone must have the same",
		},
		"without layering": {
			class: map[string]string{"imageFeatures": "exclusive-lock"},
			err:   "imageFeatures of the class has no layering, without which Ceph makes no clones: choose another class",
		},
		"of btrfs": {
			source: map[string]string{"fsType": "btrfs"},
			err:    "source claim db has file system btrfs, of which no node may see two copies",
		},
		"smaller": {
			claim: []func(*corev1.PersistentVolumeClaim){requesting("1023Mi")},
			err:   "image cannot be cloned as requested: kube/kubernetes-dynamic-pvc-db-uid has a size of 1Gi: request this size or more",
		},
		"read-only, as a device": {
			source: map[string]string{"volumeMode": "Block"},
			claim:  []func(*corev1.PersistentVolumeClaim){blockMode, modes(corev1.ReadOnlyMany)},
			err:    "nothing would keep nodes from writing to a block volume with access mode ReadOnlyMany: ask for ReadWriteOnce, or for volumeMode Filesystem",
		},
		"read-only and larger": {
			claim: []func(*corev1.PersistentVolumeClaim){modes(corev1.ReadOnlyMany), requesting("2Gi")},
			err:   "a clone with access mode ReadOnlyMany must have the size of its source, 1Gi, as nobody could grow its file system",
		},
		"read-only, of what a node has": {
			change: held, claim: []func(*corev1.PersistentVolumeClaim){modes(corev1.ReadOnlyMany)},
			err: "image is in use: kube/kubernetes-dynamic-pvc-db-uid is attached to node node-a" + until,
		},
		"unmounted, of what a node has": {
			change: held, claim: []func(*corev1.PersistentVolumeClaim){func(c *corev1.PersistentVolumeClaim) {
				c.Annotations = map[string]string{"rbd-provisioner.ceph.com/clone-unmounted": "true"}
			}},
			err: "image is in use: kube/kubernetes-dynamic-pvc-db-uid is attached to node node-a" + until,
		},
		"read-only, of what somebody has mapped": {
			change: func(w *cloneWorld) {
				_ = w.ceph.Change(imageRef("db-uid"), func(i *rbdutil.Image) { i.Watchers = []string{"10.0.0.9:0/1"} })
			},
			claim: []func(*corev1.PersistentVolumeClaim){modes(corev1.ReadOnlyMany)},
			err:   "image cannot be cloned as requested: image is in use: kube/kubernetes-dynamic-pvc-db-uid is mapped or open at 10.0.0.9:0/1" + until,
		},
		"of an image that is being migrated": {
			change: func(w *cloneWorld) {
				_ = w.ceph.Change(imageRef("db-uid"), func(i *rbdutil.Image) { i.Features |= 1 << 9 })
			},
			err: "image cannot be cloned as requested: image is being migrated: kube/kubernetes-dynamic-pvc-db-uid: end the migration (`rbd migration execute kube/kubernetes-dynamic-pvc-db-uid` " +
				"and `rbd migration commit kube/kubernetes-dynamic-pvc-db-uid`, or `rbd migration abort kube/kubernetes-dynamic-pvc-db-uid`)",
		},
		"of an image that another Ceph has": {
			change: func(w *cloneWorld) { w.volume.Spec.RBD.RBDImage += "-lost" },
			err: "clone source not found: open image kube/kubernetes-dynamic-pvc-db-uid-lost: image not found: " +
				"the class must be for the Ceph cluster in which kube/kubernetes-dynamic-pvc-db-uid-lost is, and client.kube have the right to its pool",
		},
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
			volume, state, err := w.Provision(t.Context(), optionsFor(classWith(test.class), claim))
			if diff := cmp.Diff(test.err, textOf(err)); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
			if volume != nil || state != noChange {
				t.Errorf("state %s, volume %v", state, volume)
			}
			w.wantImages(t, "kube/kubernetes-dynamic-pvc-db-uid")
		})
	}
}

// TestCloneOfWhatIsGoneForAClaimThatIsGone has nobody who would wait for it.
func TestCloneOfWhatIsGoneForAClaimThatIsGone(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, nil, func(w *cloneWorld) { w.claim.DeletionTimestamp = ptr.To(metav1.Now()) })
	another := claimOf(ofDB, func(c *corev1.PersistentVolumeClaim) { c.UID = "another" })
	for _, there := range []*corev1.PersistentVolumeClaim{nil, another} {
		if there != nil {
			add(t, w.claims, there)
		}
		if _, state, err := w.Provision(t.Context(), optionsFor(classWith(nil), claimOf(ofDB))); state != finished || err == nil {
			t.Errorf("state %s, error %v", state, err)
		}
	}
}

// Deletion, and whoever looks at the pool, know a clone and its source by its record.
func TestCloneSaysWhatItWasMadeOf(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, map[string]string{"fsType": "xfs"})
	volume := w.provision(t, optionsFor(classWith(nil), claimOf(ofDB, requesting("3Gi"))))
	if got := volume.Annotations[annClonedFrom]; got != "pvc-db-uid" || w.volume.Annotations[annClonedFrom] != "" {
		t.Errorf("cloned from %q, its source from %q", got, w.volume.Annotations[annClonedFrom])
	}
	want := recordFor(3 << 30)
	want.Source = &rbdutil.RecordedSource{
		SourceVolume: rbdutil.SourceVolume{VolumeName: "pvc-db-uid", FSType: "xfs", FSSize: 1 << 30},
		SnapshotRef:  *w.image(t, imageRef("1e7f")).Parent, Size: 1 << 30,
	}
	if diff := cmp.Diff(want, w.image(t, imageRef("1e7f")).Record); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

// TestCloneOfASourceThatHasGrownSince has a snapshot of an earlier attempt.
func TestCloneOfASourceThatHasGrownSince(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, nil)
	w.failOnce("clone", true, rbdutil.ErrTimeout)
	opts := optionsFor(classWith(nil), claimOf(ofDB, requesting("3Gi")))
	if _, state, err := w.Provision(t.Context(), opts); state != background {
		t.Fatalf("state %s, error %v", state, err)
	}
	w.ceph.After = nil
	if err := w.ceph.Change(imageRef("db-uid"), func(i *rbdutil.Image) { i.Size = 3 << 30 }); err != nil {
		t.Fatal(err)
	}
	w.claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("3Gi")}
	add(t, w.claims, w.claim)
	if got := w.provision(t, opts).Annotations[annPreResizeCapacity]; got != "1Gi" {
		t.Errorf("the file system is said to have %q, but that of the snapshot has 1Gi", got)
	}
}

// A class that is for another file system, or has none to say, is no reason to refuse.
func TestSourceOutlivesItsClassAndClaim(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, nil)
	clone := w.provision(t, optionsFor(classWith(nil), claimOf(ofDB)))
	if err := w.claims.Delete(w.claim); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), w.released(t, w.volume)); err != nil {
		t.Fatal(err)
	}
	w.wantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
	if err := w.Delete(t.Context(), w.released(t, clone)); err != nil {
		t.Fatal(err)
	}
	w.unstore(t, w.volume.Name, clone.Name)
	w.cleanTrash(t)
	if diff := cmp.Diff([]string{}, w.ceph.TrashedNames()); diff != "" {
		t.Errorf("in the trash (-want +got):\n%s", diff)
	}
}

// What is begun of a clone, and its snapshot, go when its claim does.
func TestSweepReleasesSnapshotsOfClonesThatNeverWere(t *testing.T) {
	t.Parallel()
	w := newSweptWorld(t)
	source, owner := imageRef(uidOne), rbdutil.Owner{ClaimUID: uidOne, VolumeName: "pvc-" + uidOne, Provisioner: DefaultName, ClusterID: "here"}
	if _, err := rbdutil.NewImages(w.ceph).Ensure(t.Context(), rbdutil.Cluster{}, rbdutil.ImageSpec{
		ImageRef: source, Layout: rbdutil.Layout{Features: rbdutil.Layering}, Size: rbdutil.MiB, Owner: owner,
	}); err != nil {
		t.Fatal(err)
	}
	add(t, w.claims, claimOf(func(c *corev1.PersistentVolumeClaim) { c.Name, c.UID = "source", uidOne }))
	add(t, w.claims, claimOf(func(c *corev1.PersistentVolumeClaim) { c.Name, c.UID = "awaited", uidTwo }))
	for _, uid := range []string{uidGone, uidTwo} {
		if err := w.ceph.CreateSnapshot(t.Context(), rbdutil.Cluster{}, source, "rbd-provisioner-for-kubernetes-dynamic-pvc-"+uid); err != nil {
			t.Fatal(err)
		}
	}
	looks := 0
	w.ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == "get" {
			looks++
		}
		return nil
	}
	for range 2 {
		w.Sweep(t.Context())
	}
	if looks != 2 { // the source, and the clone that is not there
		t.Errorf("%d looks", looks)
	}
	w.ceph.Before = nil
	if got := w.image(t, source).Snapshots; len(got) != 1 || !strings.HasSuffix(got[0], uidTwo) {
		t.Errorf("snapshots %q are left", got)
	}
}
