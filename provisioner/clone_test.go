package provisioner

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// cloneWorld has a bound claim shop/db of 1Gi with its volume and image. The changes are
// made before the caches have them.
type cloneWorld struct {
	*world
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
	node   *corev1.Node
}

func newCloneWorld(t *testing.T, class map[string]string, changes ...func(*cloneWorld)) *cloneWorld {
	t.Helper()
	w := &cloneWorld{world: newWorld(t), node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}}
	w.claim = fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.Name, c.UID = "db", "db-uid" })
	if class["volumeMode"] == "Block" {
		w.claim.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
		class = nil
	}
	w.volume = w.provision(t, fixture.Options(fixture.Class(class), w.claim))
	w.volume.Annotations[annProvisionedBy] = DefaultName
	w.volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "shop", Name: "db", UID: "db-uid"}
	w.claim.Spec.VolumeName = w.volume.Name
	w.claim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: w.volume.Spec.Capacity}
	for _, change := range changes {
		if change != nil {
			change(w)
		}
	}
	fixture.Add(t, w.Claims, w.claim)
	fixture.Add(t, w.Volumes, w.volume)
	fixture.Add(t, w.Nodes, w.node)
	return w
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
		"larger, so that its file system has to grow": {claim: []func(*corev1.PersistentVolumeClaim){fixture.Requesting("3Gi")}, pre: "1Gi"},
		"of a source whose file system is not expanded yet": {pre: "512Mi", change: func(w *cloneWorld) {
			w.claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("512Mi")}
		}},
		"of xfs, which is known by its UUID": {source: map[string]string{"fsType": "xfs"}, fsType: "xfs", options: []string{"nouuid"}},
		"with another file system than that of the class": {source: map[string]string{"fsType": "xfs"}, class: map[string]string{"fsType": "ext4"},
			fsType: "xfs", options: []string{"nouuid"}},
		"read-only": {claim: []func(*corev1.PersistentVolumeClaim){fixture.AccessModes(corev1.ReadOnlyMany)}, options: []string{"ro"}},
		"read-only, of xfs": {source: map[string]string{"fsType": "xfs"}, claim: []func(*corev1.PersistentVolumeClaim){fixture.AccessModes(corev1.ReadOnlyMany)},
			fsType: "xfs", options: []string{"nouuid", "ro"}},
		"for one writer or many readers": {claim: []func(*corev1.PersistentVolumeClaim){fixture.AccessModes(corev1.ReadWriteOnce, corev1.ReadOnlyMany)}},
		"of a block volume":              {source: map[string]string{"volumeMode": "Block"}, claim: []func(*corev1.PersistentVolumeClaim){fixture.Requesting("3Gi"), fixture.Block}},
		"of a mounted volume": {change: func(w *cloneWorld) {
			w.node.Status.VolumesInUse = []corev1.UniqueVolumeName{"kubernetes.io/rbd/kube:kubernetes-dynamic-pvc-db-uid"}
		}},
		"in another pool": {class: map[string]string{"pool": "data"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCloneWorld(t, test.source, test.change)
			claim := fixture.Claim(append([]func(*corev1.PersistentVolumeClaim){fixture.CloneOf("db")}, test.claim...)...)
			volume := w.provision(t, fixture.Options(fixture.Class(test.class), claim))
			img := w.Image(t, rbdutil.ImageRef{Pool: volume.Spec.RBD.RBDPool, Name: "kubernetes-dynamic-pvc-1e7f"})
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
			again := w.provision(t, fixture.Options(fixture.Class(test.class), claim))
			if diff := cmp.Diff(volume, again); diff != "" {
				t.Errorf("asked again (-first +second):\n%s", diff)
			}
		})
	}
}

func TestCloneKeepsTheMountOptionsOfTheClass(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, map[string]string{"fsType": "xfs"})
	class := fixture.Class(nil)
	class.MountOptions = []string{"nouuid", "noatime"}
	volume := w.provision(t, fixture.Options(class, fixture.Claim(fixture.CloneOf("db"), fixture.AccessModes(corev1.ReadOnlyMany))))
	if diff := cmp.Diff([]string{"nouuid", "noatime", "ro"}, volume.Spec.MountOptions); diff != "" {
		t.Errorf("mount options (-want +got):\n%s", diff)
	}
	if len(class.MountOptions) != 2 {
		t.Errorf("the class has mount options %q", class.MountOptions)
	}
}

func TestInvalidClones(t *testing.T) {
	t.Parallel()
	held := func(w *cloneWorld) {
		w.node.Status.VolumesAttached = []corev1.AttachedVolume{{Name: "kubernetes.io/rbd/kube:kubernetes-dynamic-pvc-db-uid"}}
	}
	const until = ": a clone that is ReadOnlyMany, or annotated with rbd-provisioner.ceph.com/clone-unmounted, is created when no node has its source mounted"
	for name, test := range map[string]struct {
		source map[string]string
		class  map[string]string
		change func(*cloneWorld)
		claim  []func(*corev1.PersistentVolumeClaim)
		err    string
	}{
		"of what is not there": {
			claim: []func(*corev1.PersistentVolumeClaim){func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource.Name = "lost" }},
			err:   "source claim lost does not exist in namespace shop: the clone will be created when the source claim is bound",
		},
		"of what another namespace has": {
			claim: []func(*corev1.PersistentVolumeClaim){func(c *corev1.PersistentVolumeClaim) { c.Namespace = "elsewhere" }},
			err:   "source claim db does not exist in namespace elsewhere: the clone will be created when the source claim is bound",
		},
		"of what is pending": {
			change: func(w *cloneWorld) { w.claim.Status.Phase = corev1.ClaimPending },
			err:    "source claim db is not bound: the clone will be created when it is",
		},
		"of what has lost its volume": {
			change: func(w *cloneWorld) { w.claim.Status.Phase = corev1.ClaimLost },
			err:    "source claim db is not bound: the clone will be created when it is",
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
			err:    "volume pvc-db-uid of source claim db is bound to another claim",
		},
		"of another provisioner's volume": {
			change: func(w *cloneWorld) { w.volume.Annotations[annProvisionedBy] = "kubernetes.io/rbd" },
			err:    "volume pvc-db-uid of source claim db was not created by this provisioner, which clones only its own volumes",
		},
		"of what is no image": {
			change: func(w *cloneWorld) { w.volume.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{} },
			err:    "volume pvc-db-uid of source claim db was not created by this provisioner, which clones only its own volumes",
		},
		"a file system of a device": {
			source: map[string]string{"volumeMode": "Block"},
			err:    "source claim db has volumeMode Block, and a clone must have the same",
		},
		"a device of a file system": {
			claim: []func(*corev1.PersistentVolumeClaim){fixture.Block},
			err:   "source claim db has volumeMode Filesystem, and a clone must have the same",
		},
		"without layering": {
			class: map[string]string{"imageFeatures": "exclusive-lock"},
			err:   "imageFeatures of the class lacks layering, which clones require: use another class",
		},
		"of btrfs": {
			source: map[string]string{"fsType": "btrfs"},
			err:    "source claim db has file system btrfs, of which a node cannot mount two copies",
		},
		"smaller": {
			claim: []func(*corev1.PersistentVolumeClaim){fixture.Requesting("1023Mi")},
			err:   "image cannot be cloned as requested: kube/kubernetes-dynamic-pvc-db-uid has a size of 1Gi: request this size or more",
		},
		"read-only, as a device": {
			source: map[string]string{"volumeMode": "Block"},
			claim:  []func(*corev1.PersistentVolumeClaim){fixture.Block, fixture.AccessModes(corev1.ReadOnlyMany)},
			err:    "nodes do not enforce access mode ReadOnlyMany on block volumes: request ReadWriteOnce, or volumeMode Filesystem",
		},
		"read-only and larger": {
			claim: []func(*corev1.PersistentVolumeClaim){fixture.AccessModes(corev1.ReadOnlyMany), fixture.Requesting("2Gi")},
			err:   "a clone with access mode ReadOnlyMany must have the size of its source, 1Gi, because its file system cannot be expanded",
		},
		"read-only, of what a node has": {
			change: held, claim: []func(*corev1.PersistentVolumeClaim){fixture.AccessModes(corev1.ReadOnlyMany)},
			err: "image is in use: kube/kubernetes-dynamic-pvc-db-uid is attached to node node-a" + until,
		},
		"unmounted, of what a node has": {
			change: held, claim: []func(*corev1.PersistentVolumeClaim){func(c *corev1.PersistentVolumeClaim) {
				c.Annotations = map[string]string{"rbd-provisioner.ceph.com/clone-unmounted": "true"}
			}},
			err: "image is in use: kube/kubernetes-dynamic-pvc-db-uid is attached to node node-a" + until,
		},
		"read-only, of a mapped image": {
			change: func(w *cloneWorld) {
				_ = w.Ceph.Change(fixture.ImageRef("db-uid"), func(i *rbdutil.Image) { i.Watchers = []string{"10.0.0.9:0/1"} })
			},
			claim: []func(*corev1.PersistentVolumeClaim){fixture.AccessModes(corev1.ReadOnlyMany)},
			err:   "image cannot be cloned as requested: image is in use: kube/kubernetes-dynamic-pvc-db-uid is mapped or open at 10.0.0.9:0/1" + until,
		},
		"of an image that is being migrated": {
			change: func(w *cloneWorld) {
				_ = w.Ceph.Change(fixture.ImageRef("db-uid"), func(i *rbdutil.Image) { i.Features |= 1 << 9 })
			},
			err: "image cannot be cloned as requested: image is being migrated: kube/kubernetes-dynamic-pvc-db-uid: finish the migration (`rbd migration execute kube/kubernetes-dynamic-pvc-db-uid` " +
				"and `rbd migration commit kube/kubernetes-dynamic-pvc-db-uid`), or abort it (`rbd migration abort kube/kubernetes-dynamic-pvc-db-uid`)",
		},
		"of an image that another Ceph has": {
			change: func(w *cloneWorld) { w.volume.Spec.RBD.RBDImage += "-lost" },
			err: "clone source not found: open image kube/kubernetes-dynamic-pvc-db-uid-lost: image not found: " +
				"the class must use the Ceph cluster that has kube/kubernetes-dynamic-pvc-db-uid-lost, and client.kube must have access to its pool",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCloneWorld(t, test.source, test.change)
			claim := fixture.Claim(append([]func(*corev1.PersistentVolumeClaim){fixture.CloneOf("db")}, test.claim...)...)
			fixture.Add(t, w.Claims, claim)
			volume, state, err := w.Provision(t.Context(), fixture.Options(fixture.Class(test.class), claim))
			if diff := cmp.Diff(test.err, fixture.TextOf(err)); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
			if volume != nil || state != noChange {
				t.Errorf("state %s, volume %v", state, volume)
			}
			w.WantImages(t, "kube/kubernetes-dynamic-pvc-db-uid")
		})
	}
}

// The clone is abandoned if its claim is deleted as well.
func TestCloneIsAbandonedWithoutSourceAndClaim(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, nil, func(w *cloneWorld) { w.claim.DeletionTimestamp = ptr.To(metav1.Now()) })
	another := fixture.Claim(fixture.CloneOf("db"), func(c *corev1.PersistentVolumeClaim) { c.UID = "another" })
	for _, there := range []*corev1.PersistentVolumeClaim{nil, another} {
		if there != nil {
			fixture.Add(t, w.Claims, there)
		}
		if _, state, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), fixture.Claim(fixture.CloneOf("db")))); state != finished || err == nil {
			t.Errorf("state %s, error %v", state, err)
		}
	}
}

// Deletion, and an administrator, find the source of a clone in its record.
func TestCloneRecordsItsSource(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, map[string]string{"fsType": "xfs"})
	volume := w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim(fixture.CloneOf("db"), fixture.Requesting("3Gi"))))
	if got := volume.Annotations[annClonedFrom]; got != "pvc-db-uid" || w.volume.Annotations[annClonedFrom] != "" {
		t.Errorf("cloned from %q, its source from %q", got, w.volume.Annotations[annClonedFrom])
	}
	want := fixture.Record(3 << 30)
	want.Source = &rbdutil.RecordedSource{
		SourceVolume: rbdutil.SourceVolume{VolumeName: "pvc-db-uid", FSType: "xfs", FSSize: 1 << 30},
		SnapshotRef:  *w.Image(t, fixture.ImageRef("1e7f")).Parent, Size: 1 << 30,
	}
	if diff := cmp.Diff(want, w.Image(t, fixture.ImageRef("1e7f")).Record); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

// The clone uses a snapshot of an earlier attempt, which is smaller than the source now.
func TestCloneOfASourceThatWasExpanded(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, nil)
	w.FailOnce("clone", true, rbdutil.ErrTimeout)
	opts := fixture.Options(fixture.Class(nil), fixture.Claim(fixture.CloneOf("db"), fixture.Requesting("3Gi")))
	if _, state, err := w.Provision(t.Context(), opts); state != inBackground {
		t.Fatalf("state %s, error %v", state, err)
	}
	w.Ceph.After = nil
	if err := w.Ceph.Change(fixture.ImageRef("db-uid"), func(i *rbdutil.Image) { i.Size = 3 << 30 }); err != nil {
		t.Fatal(err)
	}
	w.claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("3Gi")}
	fixture.Add(t, w.Claims, w.claim)
	if got := w.provision(t, opts).Annotations[annPreResizeCapacity]; got != "1Gi" {
		t.Errorf("the size of the file system is recorded as %q, want that of the snapshot, 1Gi", got)
	}
}
