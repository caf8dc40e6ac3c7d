package provisioner

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// In the cache, the volume is to be deleted in all rows.
func TestDeleteConfirmsWithTheAPIServer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		now    func(*corev1.PersistentVolume)
		reason string
	}{
		"its policy is Retain": {
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
			"the volume was reassigned to another provisioner"},
		"it was deleted": {nil, "the volume does not exist any more"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			if test.now == nil {
				w.Remove(t, volume.Name)
			} else {
				now := volume.DeepCopy()
				test.now(now)
				w.Store(t, now)
			}
			w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
				t.Errorf("Ceph was asked to %s", op)
				return nil
			}
			err := w.Delete(t.Context(), volume)
			// The library checks the type of the error itself, not of what it wraps.
			ignored, bare := err.(*controller.IgnoredError) //nolint:errorlint // as the library does
			if !bare || ignored.Reason != test.reason {
				t.Errorf("%T %v, want an IgnoredError: %s", err, err, test.reason)
			}
			if n := w.VolumeGets(); n != 1 {
				t.Errorf("%d GETs of the volume, want 1", n)
			}
			// An earlier attempt may have moved the image to the trash.
			if diff := cmp.Diff(fixture.Trash{Now: []string{"kube"}}, *w.Trash); diff != "" {
				t.Errorf("the trash is cleaned (-want +got):\n%s", diff)
			}
			w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
		})
	}
}

func TestDeleteFailsWithoutTheAPIServer(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	w.FailVolumes(errors.New("etcd is slow"))
	err := w.Delete(t.Context(), volume)
	if got, want := fixture.TextOf(err), "read volume pvc-1e7f: etcd is slow"; got != want {
		t.Errorf("error %s\nwant  %s", got, want)
	}
	if _, ignored := err.(*controller.IgnoredError); ignored { //nolint:errorlint // as the library does
		t.Error("the library would not retry")
	}
	w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
}

func TestDeleteReadsTheVolumeOnce(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	if err := w.Delete(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	if n := w.VolumeGets(); n != 1 {
		t.Errorf("%d GETs of the volume, want 1", n)
	}
	w.WantImages(t)
}

func TestDeleteKeepsAnImageOfAnotherVolume(t *testing.T) {
	t.Parallel()
	const image = "kubernetes-dynamic-pvc-1e7f"
	released := fixture.RBDVolume("other", "kube", image)
	released.Status.Phase, released.Spec.PersistentVolumeReclaimPolicy = corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete
	elsewhere := fixture.RBDVolume("other", "kube", image)
	elsewhere.Spec.RBD.CephMonitors = []string{"another.example.com"}
	for name, test := range map[string]struct {
		others []*corev1.PersistentVolume
		names  string // in the event; empty if the image is deleted
	}{
		"in the tree":                     {[]*corev1.PersistentVolume{fixture.RBDVolume("other", "kube", image)}, "other"},
		"with other monitors":             {[]*corev1.PersistentVolume{elsewhere}, "other"},
		"but it is to be deleted, too":    {[]*corev1.PersistentVolume{released}, ""},
		"twice":                           {[]*corev1.PersistentVolume{fixture.RBDVolume("z", "kube", image), fixture.RBDVolume("a", "kube", image)}, "a, z"},
		"made by ceph-csi":                {[]*corev1.PersistentVolume{fixture.CSIVolume("other", "0001-0009-rook-ceph-0000000000000002-1e7f", "kube", image)}, "other"},
		"static, in ceph-csi":             {[]*corev1.PersistentVolume{fixture.CSIVolume("other", image, "kube", "")}, "other"},
		"migrated":                        {[]*corev1.PersistentVolume{fixture.CSIVolume("other", "mig_mons-0123_image-1e7f_6b756265", "", "")}, "other"},
		"migrated, with its whole name":   {[]*corev1.PersistentVolume{fixture.CSIVolume("other", "mig_mons-0123_image-"+image+"_6b756265", "", "")}, "other"},
		"but in another pool":             {[]*corev1.PersistentVolume{fixture.RBDVolume("other", "data", image)}, ""},
		"but migrated from another pool":  {[]*corev1.PersistentVolume{fixture.CSIVolume("other", "mig_mons-0123_image-1e7f_64617461", "", "")}, ""},
		"but of another name":             {[]*corev1.PersistentVolume{fixture.RBDVolume("other", "kube", image+"-copy")}, ""},
		"the volume itself, in the cache": {[]*corev1.PersistentVolume{fixture.RBDVolume("pvc-1e7f", "kube", image)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			fixture.Add(t, w.Volumes, test.others...)
			err := w.Delete(t.Context(), volume)
			if test.names == "" {
				if err != nil {
					t.Error(err)
				}
				w.WantImages(t)
				return
			}
			want := "image is in use: kube/kubernetes-dynamic-pvc-1e7f is also the image of volume " + test.names +
				": delete the other volume, or keep the image (`kubectl patch pv pvc-1e7f -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'`)"
			if fixture.TextOf(err) != want || !errors.Is(err, rbdutil.ErrImageInUse) {
				t.Errorf("error %v\nwant  %s", err, want)
			}
			w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
		})
	}
}

// The data of an image with a prepared migration has another name.
func TestDeleteKeepsAnImageThatIsBeingMigrated(t *testing.T) {
	t.Parallel()
	const hint = ": finish the migration (`rbd migration execute kube/kubernetes-dynamic-pvc-1e7f` and `rbd migration commit kube/kubernetes-dynamic-pvc-1e7f`), " +
		"or abort it (`rbd migration abort kube/kubernetes-dynamic-pvc-1e7f`)"
	w, volume := provisioned(t)
	if _, err := w.Ceph.Migrate(fixture.ImageRef("1e7f")); err != nil {
		t.Fatal(err)
	}
	err := w.Delete(t.Context(), volume)
	if got, want := fixture.TextOf(err), "image is being migrated: kube/kubernetes-dynamic-pvc-1e7f"+hint; got != want || !errors.Is(err, rbdutil.ErrMigrating) {
		t.Errorf("error %s\nwant  %s", got, want)
	}
	w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f-migrated")
	if diff := cmp.Diff([]string{"kube/kubernetes-dynamic-pvc-1e7f"}, w.Ceph.TrashedNames()); diff != "" {
		t.Errorf("in the trash (-want +got):\n%s", diff)
	}
}

// Another client opens, locks or replaces the image after it was read.
func TestDeleteChangesOnlyTheImageThatItHasRead(t *testing.T) {
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
			w.Ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
				if op == "get" {
					w.Ceph.After = nil
					w.Change(t, test.change)
				}
				return nil
			}
			if err := w.Delete(t.Context(), volume); !errors.Is(err, test.is) {
				t.Errorf("error %v, want %v", err, test.is)
			}
			w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
			if got := w.Image(t, fixture.ImageRef("1e7f")).Record.Deleted; got != nil {
				t.Errorf("its record has a deletion: %+v", got)
			}
		})
	}
}

func TestDeletedImagesAreKeptForTheRetentionOfTheVolume(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cached, live string // annotation; empty for none
		keep         time.Duration
		err          string
	}{
		"not at all":                    {},
		"for a day":                     {cached: "24h", live: "24h", keep: 24 * time.Hour},
		"as in the API server":          {cached: "", live: "36h0m0s", keep: 36 * time.Hour},
		"not as in a stale cache":       {cached: "24h", live: ""},
		"for no time that is one":       {live: "1d", err: `"1d"`},
		"for less than a second":        {live: "10ms", err: `"10ms"`},
		"for less than no time":         {live: "-1h", err: `"-1h"`},
		"longer than allowed":           {live: "87601h", err: `"87601h"`},
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
			w.Store(t, volume)
			annotate(volume, test.cached)
			err := w.Delete(t.Context(), volume)
			if test.err != "" {
				want := "annotation rbd-provisioner.ceph.com/trash-retention of the volume: " + test.err +
					": not a duration such as 24h, allowed: 0 to 87600h in whole seconds: correct or remove it"
				if fixture.TextOf(err) != want {
					t.Errorf("error %v\nwant  %s", err, want)
				}
				w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			trashed, err := w.Ceph.ListTrash(t.Context(), rbdutil.Cluster{}, "kube")
			if err != nil || len(trashed) != 1 {
				t.Fatalf("trash %v, %v", trashed, err)
			}
			if got := trashed[0].KeepUntil.Sub(trashed[0].Trashed); got != test.keep {
				t.Errorf("kept for %s, want %s", got, test.keep)
			}
		})
	}
}

func TestVolumesOfAnotherIdentityAreRejected(t *testing.T) {
	t.Parallel()
	const rejected = `the volume was created by the rbd-provisioner with identity "rbd-2" (annotation rbdProvisionerIdentity), ` +
		"which this provisioner does not serve: to serve it, start this provisioner with --predecessor-identity=rbd-2"
	for name, test := range map[string]struct {
		identity string
		flags    []string
		want     string
	}{
		"its own name":                      {identity: DefaultName},
		"another":                           {identity: "rbd-2", want: rejected},
		"another, which is not in the list": {identity: "rbd-2", flags: []string{"rbd-1", "RBD-2"}, want: rejected},
		"another, which is served":          {identity: "rbd-2", flags: []string{"rbd-1", "rbd-2"}},
	} {
		t.Run("deletion: "+name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			w.Clusters.Identities = test.flags
			volume.Annotations[annPredecessor] = test.identity
			w.Store(t, volume)
			if err := w.Delete(t.Context(), volume); fixture.TextOf(err) != test.want {
				t.Errorf("error %v\nwant  %s", err, test.want)
			}
			if left := len(w.Ceph.Names()); (left > 0) != (test.want != "") {
				t.Errorf("%d images are left", left)
			}
		})
		t.Run("clone: "+name, func(t *testing.T) {
			t.Parallel()
			w := newCloneWorld(t, nil, func(w *cloneWorld) { w.volume.Annotations[annPredecessor] = test.identity })
			w.Clusters.Identities = test.flags
			claim := fixture.Claim(fixture.CloneOf("db"))
			fixture.Add(t, w.Claims, claim)
			_, _, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), claim))
			if fixture.TextOf(err) != test.want {
				t.Errorf("error %v\nwant  %s", err, test.want)
			}
		})
	}
}

// The phase of a volume is stale for a moment after a change of its claimRef. The cache of
// claims may be stale as well, so the API server decides.
func TestDeleteReadsTheClaimIfTheCacheHasIt(t *testing.T) {
	t.Parallel()
	for name, exists := range map[string]bool{"it was deleted": false, "it exists": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			claim := fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = volume.Name })
			claim.Namespace, claim.Name, claim.UID = volume.Spec.ClaimRef.Namespace, volume.Spec.ClaimRef.Name, volume.Spec.ClaimRef.UID
			fixture.Add(t, w.Claims, claim)
			if exists {
				if err := w.Client.Tracker().Add(claim); err != nil {
					t.Fatal(err)
				}
			}
			err := w.Delete(t.Context(), volume)
			if _, ignored := err.(*controller.IgnoredError); ignored != exists || !exists && err != nil { //nolint:errorlint // as the library does
				t.Errorf("error %v", err)
			}
			if gone := len(w.Ceph.Names()) == 0; gone == exists {
				t.Errorf("the image is gone: %t", gone)
			}
		})
	}
}
