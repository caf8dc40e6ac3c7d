package provisioner

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// gets counts how often the API server was asked for a volume.
func (w *world) gets() int {
	n := 0
	for _, action := range w.client.Actions() {
		if action.Matches("get", "persistentvolumes") {
			n++
		}
	}
	return n
}

// failVolumes makes every GET of a volume fail.
func (w *world) failVolumes(err error) {
	w.client.PrependReactor("get", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, err
	})
}

// The cache says in all rows that the volume is to be deleted.
func TestDeleteDoesNotBelieveALaggingCache(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		now    func(*corev1.PersistentVolume)
		reason string
	}{
		"its owner wants to keep it": {
			func(v *corev1.PersistentVolume) {
				v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
			}, "the volume is Released, with reclaim policy Retain"},
		"it is bound": {
			func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound },
			"the volume is Bound, with reclaim policy Delete"},
		"it is bound and is to be kept": {
			func(v *corev1.PersistentVolume) {
				v.Status.Phase, v.Spec.PersistentVolumeReclaimPolicy = corev1.VolumeBound, corev1.PersistentVolumeReclaimRetain
			}, "the volume is Bound, with reclaim policy Retain"},
		"its claim was taken away, so that it is free for another": {
			func(v *corev1.PersistentVolume) { v.Spec.ClaimRef, v.Status.Phase = nil, corev1.VolumeAvailable },
			"the volume is Available, with reclaim policy Delete"},
		"its deletion has failed": {
			func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeFailed },
			"the volume is Failed, with reclaim policy Delete"},
		"it was created again": {
			func(v *corev1.PersistentVolume) { v.UID = "another" },
			"the volume was replaced by another of its name"},
		"it is for another claim": {
			func(v *corev1.PersistentVolume) { v.Spec.ClaimRef.UID = "another" },
			"the volume is bound to another claim"},
		"it is for no claim": {
			func(v *corev1.PersistentVolume) { v.Spec.ClaimRef = nil },
			"the volume is bound to another claim"},
		"it is of another provisioner": {
			func(v *corev1.PersistentVolume) { v.Annotations[annProvisionedBy] = "rbd.csi.ceph.com" },
			"the volume was handed over to another provisioner"},
		"it is gone": {nil, "the volume does not exist any more"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			if test.now == nil {
				w.unstore(t, volume.Name)
			} else {
				now := volume.DeepCopy()
				test.now(now)
				w.store(t, now)
			}
			w.ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
				t.Errorf("Ceph was asked to %s", op)
				return nil
			}
			err := w.Delete(t.Context(), volume)
			// The library looks at the type of the error itself, not at what it wraps.
			ignored, bare := err.(*controller.IgnoredError) //nolint:errorlint // as the library does
			if !bare || ignored.Reason != test.reason {
				t.Errorf("%T %v, want an IgnoredError: %s", err, err, test.reason)
			}
			if n := w.gets(); n != 1 {
				t.Errorf("%d GETs of the volume, want 1", n)
			}
			// An earlier attempt may have moved the image there.
			if diff := cmp.Diff(notedTrash{now: []string{"kube"}}, *w.trash, cmp.AllowUnexported(notedTrash{})); diff != "" {
				t.Errorf("the trash is cleaned (-want +got):\n%s", diff)
			}
			w.wantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
		})
	}
}

func TestDeleteDoesNotGoOnWithoutTheAPIServer(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	w.failVolumes(errors.New("etcd is slow"))
	err := w.Delete(t.Context(), volume)
	if got, want := textOf(err), "read volume pvc-1e7f: etcd is slow"; got != want {
		t.Errorf("error %s\nwant  %s", got, want)
	}
	if _, ignored := err.(*controller.IgnoredError); ignored { //nolint:errorlint // as the library does
		t.Error("the library would not try again")
	}
	w.wantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
}

func TestDeleteAsksTheAPIServerOnce(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	if err := w.Delete(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	if n := w.gets(); n != 1 {
		t.Errorf("%d GETs of the volume, want 1", n)
	}
	w.wantImages(t)
}

// csiVolume is a volume of ceph-csi with the attributes pool and, if given, imageName.
func csiVolume(name, handle, pool, image string) *corev1.PersistentVolume {
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	volume.Spec.CSI = &corev1.CSIPersistentVolumeSource{
		Driver: "rbd.csi.ceph.com", VolumeHandle: handle, VolumeAttributes: map[string]string{},
	}
	for key, value := range map[string]string{"pool": pool, "imageName": image} {
		if value != "" {
			volume.Spec.CSI.VolumeAttributes[key] = value
		}
	}
	return volume
}

// rbdVolume is an in-tree volume.
func rbdVolume(name, pool, image string) *corev1.PersistentVolume {
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	volume.Spec.RBD = &corev1.RBDPersistentVolumeSource{RBDPool: pool, RBDImage: image}
	return volume
}

func TestDeleteSparesAnImageThatAnotherVolumeShows(t *testing.T) {
	t.Parallel()
	const image = "kubernetes-dynamic-pvc-1e7f"
	released := rbdVolume("other", "kube", image)
	released.Status.Phase, released.Spec.PersistentVolumeReclaimPolicy = corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete
	elsewhere := rbdVolume("other", "kube", image)
	elsewhere.Spec.RBD.CephMonitors = []string{"another.example.com"}
	for name, test := range map[string]struct {
		others []*corev1.PersistentVolume
		names  string // in the event; empty if the image is deleted
	}{
		"in the tree":                     {[]*corev1.PersistentVolume{rbdVolume("other", "kube", image)}, "other"},
		"with other monitors":             {[]*corev1.PersistentVolume{elsewhere}, "other"},
		"but it is to be deleted, too":    {[]*corev1.PersistentVolume{released}, ""},
		"twice":                           {[]*corev1.PersistentVolume{rbdVolume("z", "kube", image), rbdVolume("a", "kube", image)}, "a, z"},
		"made by ceph-csi":                {[]*corev1.PersistentVolume{csiVolume("other", "0001-0009-rook-ceph-0000000000000002-1e7f", "kube", image)}, "other"},
		"static, in ceph-csi":             {[]*corev1.PersistentVolume{csiVolume("other", image, "kube", "")}, "other"},
		"migrated":                        {[]*corev1.PersistentVolume{csiVolume("other", "mig_mons-0123_image-1e7f_6b756265", "", "")}, "other"},
		"migrated, with its whole name":   {[]*corev1.PersistentVolume{csiVolume("other", "mig_mons-0123_image-"+image+"_6b756265", "", "")}, "other"},
		"but in another pool":             {[]*corev1.PersistentVolume{rbdVolume("other", "data", image)}, ""},
		"but migrated from another pool":  {[]*corev1.PersistentVolume{csiVolume("other", "mig_mons-0123_image-1e7f_64617461", "", "")}, ""},
		"but of another name":             {[]*corev1.PersistentVolume{rbdVolume("other", "kube", image+"-copy")}, ""},
		"but itself, as the cache has it": {[]*corev1.PersistentVolume{rbdVolume("pvc-1e7f", "kube", image)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			add(t, w.volumes, test.others...)
			err := w.Delete(t.Context(), volume)
			if test.names == "" {
				if err != nil {
					t.Error(err)
				}
				w.wantImages(t)
				return
			}
			want := "image is in use: kube/kubernetes-dynamic-pvc-1e7f is also the image of volume " + test.names +
				": delete the other, or keep the image (`kubectl patch pv pvc-1e7f -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'`)"
			if textOf(err) != want || !errors.Is(err, rbdutil.ErrImageInUse) {
				t.Errorf("error %v\nwant  %s", err, want)
			}
			w.wantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
		})
	}
}

// Two volumes over one image that are both to be deleted do not block each other. The data
// stays until both are gone.
func TestTheImageOfTwoReleasedVolumesGoesWithTheLast(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	other := rbdVolume("other", "kube", "kubernetes-dynamic-pvc-1e7f")
	other.Status.Phase, other.Spec.PersistentVolumeReclaimPolicy = corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete
	add(t, w.volumes, other)
	if err := w.Delete(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	w.unstore(t, volume.Name)
	w.cleanTrash(t)
	if got := w.ceph.TrashedNames(); len(got) != 1 {
		t.Errorf("in the trash are %q, want the image that the other volume shows", got)
	}
	if err := w.volumes.Delete(other); err != nil {
		t.Fatal(err)
	}
	w.cleanTrash(t)
	if got := w.ceph.TrashedNames(); len(got) != 0 {
		t.Errorf("in the trash are %q, though both volumes are gone", got)
	}
}

// The data of an image whose migration was prepared is under another name.
func TestDeleteSparesAnImageThatIsBeingMigrated(t *testing.T) {
	t.Parallel()
	const hint = ": end the migration (`rbd migration execute kube/kubernetes-dynamic-pvc-1e7f` and `rbd migration commit kube/kubernetes-dynamic-pvc-1e7f`, " +
		"or `rbd migration abort kube/kubernetes-dynamic-pvc-1e7f`)"
	w, volume := provisioned(t)
	if _, err := w.ceph.Migrate(imageRef("1e7f")); err != nil {
		t.Fatal(err)
	}
	err := w.Delete(t.Context(), volume)
	if got, want := textOf(err), "image is being migrated: kube/kubernetes-dynamic-pvc-1e7f"+hint; got != want || !errors.Is(err, rbdutil.ErrMigrating) {
		t.Errorf("error %s\nwant  %s", got, want)
	}
	w.wantImages(t, "kube/kubernetes-dynamic-pvc-1e7f-migrated")
	if diff := cmp.Diff([]string{"kube/kubernetes-dynamic-pvc-1e7f"}, w.ceph.TrashedNames()); diff != "" {
		t.Errorf("in the trash (-want +got):\n%s", diff)
	}
}

// Somebody takes hold of the image, or gives it to another, after it was looked at.
func TestDeleteChangesOnlyTheImageThatItHasSeen(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*rbdutil.Image)
		is     error
	}{
		"a node maps it":            {func(i *rbdutil.Image) { i.Watchers = []string{"10.0.0.7:0/42"} }, rbdutil.ErrImageInUse},
		"a person locks it":         {func(i *rbdutil.Image) { i.Locks = []string{"x client.1"} }, rbdutil.ErrLocked},
		"a person takes a snapshot": {func(i *rbdutil.Image) { i.Snapshots = []string{"monday"} }, rbdutil.ErrHasSnapshots},
		"it is put into a group":    {func(i *rbdutil.Image) { i.Group = "daily" }, rbdutil.ErrInGroup},
		"it is mirrored":            {func(i *rbdutil.Image) { i.Mirrored = true }, rbdutil.ErrMirrored},
		"it grows":                  {func(i *rbdutil.Image) { i.Size *= 2 }, rbdutil.ErrChanged},
		"it is another image":       {func(i *rbdutil.Image) { i.ID = "another" }, rbdutil.ErrChanged},
		"it is another volume's":    {func(i *rbdutil.Image) { i.Record.VolumeName = "restored" }, rbdutil.ErrChanged},
		"its record is unreadable":  {func(i *rbdutil.Image) { i.RecordError = errors.New("x") }, rbdutil.ErrChanged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			w.ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
				if op == "get" {
					w.ceph.After = nil
					w.change(t, test.change)
				}
				return nil
			}
			if err := w.Delete(t.Context(), volume); !errors.Is(err, test.is) {
				t.Errorf("error %v, want %v", err, test.is)
			}
			w.wantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
			if got := w.image(t, imageRef("1e7f")).Record.Deleted; got != nil {
				t.Errorf("its record says that it was deleted: %+v", got)
			}
		})
	}
}

func TestDeletedImagesAreKeptAsTheVolumeSays(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cached, live string // annotation; empty for none
		keep         time.Duration
		err          string
	}{
		"not at all":                    {},
		"for a day":                     {cached: "24h", live: "24h", keep: 24 * time.Hour},
		"as the API server has it":      {cached: "", live: "36h0m0s", keep: 36 * time.Hour},
		"not as an old cache has it":    {cached: "24h", live: ""},
		"for no time that is one":       {live: "1d", err: `"1d"`},
		"for less than a second":        {live: "10ms", err: `"10ms"`},
		"for less than no time":         {live: "-1h", err: `"-1h"`},
		"for ever":                      {live: "87601h", err: `"87601h"`},
		"as long as may be":             {live: "87600h", keep: 87600 * time.Hour},
		"for a number that has no unit": {live: "24", err: `"24"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			annotate := func(v *corev1.PersistentVolume, text string) {
				if delete(v.Annotations, annTrashRetention); text != "" {
					v.Annotations[annTrashRetention] = text
				}
			}
			annotate(volume, test.live)
			w.store(t, volume)
			annotate(volume, test.cached)
			err := w.Delete(t.Context(), volume)
			if test.err != "" {
				want := "annotation rbd-provisioner.ceph.com/trash-retention of the volume: " + test.err +
					": not a duration such as 24h, allowed: 0 to 87600h in whole seconds: correct or remove it"
				if textOf(err) != want {
					t.Errorf("error %v\nwant  %s", err, want)
				}
				w.wantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			trashed, err := w.ceph.ListTrash(t.Context(), rbdutil.Cluster{}, "kube")
			if err != nil || len(trashed) != 1 {
				t.Fatalf("trash %v, %v", trashed, err)
			}
			if got := trashed[0].KeepUntil.Sub(trashed[0].Trashed); got != test.keep {
				t.Errorf("kept for %s, want %s", got, test.keep)
			}
		})
	}
}

func TestVolumesOfAnotherIdentityAreNotServed(t *testing.T) {
	t.Parallel()
	const refused = `the volume was made by the rbd-provisioner with identity "rbd-2" (annotation rbdProvisionerIdentity), ` +
		"which this provisioner does not serve: start it with --predecessor-identity=rbd-2 if it should"
	for name, test := range map[string]struct {
		identity string
		flags    []string
		want     string
	}{
		"its own name":                      {identity: DefaultName},
		"another":                           {identity: "rbd-2", want: refused},
		"another, which is not in the list": {identity: "rbd-2", flags: []string{"rbd-1", "RBD-2"}, want: refused},
		"another, which is served":          {identity: "rbd-2", flags: []string{"rbd-1", "rbd-2"}},
	} {
		t.Run("deletion: "+name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			w.identities = test.flags
			volume.Annotations[annPredecessor] = test.identity
			w.store(t, volume)
			if err := w.Delete(t.Context(), volume); textOf(err) != test.want {
				t.Errorf("error %v\nwant  %s", err, test.want)
			}
			if left := len(w.ceph.Names()); (left > 0) != (test.want != "") {
				t.Errorf("%d images are left", left)
			}
		})
		t.Run("clone: "+name, func(t *testing.T) {
			t.Parallel()
			w := newCloneWorld(t, nil, func(w *cloneWorld) { w.volume.Annotations[annPredecessor] = test.identity })
			w.identities = test.flags
			claim := claimOf(ofDB)
			add(t, w.claims, claim)
			_, _, err := w.Provision(t.Context(), optionsFor(classWith(nil), claim))
			if textOf(err) != test.want {
				t.Errorf("error %v\nwant  %s", err, test.want)
			}
		})
		t.Run("expansion: "+name, func(t *testing.T) {
			t.Parallel()
			w := newGrowWorld(t, func(w *growWorld) {
				w.identities = test.flags
				w.volume.Annotations[annPredecessor] = test.identity
			})
			if err := w.Expand(t.Context(), grownKey); textOf(err) != test.want {
				t.Errorf("error %v\nwant  %s", err, test.want)
			}
			if got := w.image(t, imageRef("1e7f")).Size; (got == 1<<30) != (test.want != "") {
				t.Errorf("the image has %d bytes", got)
			}
			if events := strings.Join(w.sent(), "\n"); test.want != "" && !strings.Contains(events, test.want) {
				t.Errorf("events %s", events)
			}
		})
	}
}

// The phase of a volume is old for a moment when its claimRef was changed, and so may be the
// cache of claims: then the API server decides.
func TestDeleteAsksForTheClaimWhereTheCacheHasIt(t *testing.T) {
	t.Parallel()
	for name, exists := range map[string]bool{"it is gone": false, "it exists": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			claim := claimOf(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = volume.Name })
			claim.Namespace, claim.Name, claim.UID = volume.Spec.ClaimRef.Namespace, volume.Spec.ClaimRef.Name, volume.Spec.ClaimRef.UID
			add(t, w.claims, claim)
			if exists {
				if err := w.client.Tracker().Add(claim); err != nil {
					t.Fatal(err)
				}
			}
			err := w.Delete(t.Context(), volume)
			if _, ignored := err.(*controller.IgnoredError); ignored != exists || !exists && err != nil { //nolint:errorlint // as the library does
				t.Errorf("error %v", err)
			}
			if gone := len(w.ceph.Names()) == 0; gone == exists {
				t.Errorf("the image is gone: %t", gone)
			}
		})
	}
}
