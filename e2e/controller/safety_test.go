//go:build e2e

package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// TestDeletionRespectsHolders deletes claims whose images are held by other volumes, or in ways
// in which Ceph does not always refuse the deletion. Each event must name the holder and a
// command that releases the image.
func TestDeletionRespectsHolders(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.Ceph.Run(t, "rbd", "mirror", "pool", "enable", e.Pool, "image")
	start(t, e)
	t.Run("cases", func(t *testing.T) {
		for name, run := range map[string]func(*testing.T, *deletion){
			"locked":         deleteLocked,
			"mirrored":       deleteMirrored,
			"migrating":      deleteMigrating,
			"grouped":        deleteGrouped,
			"of-two-volumes": deleteOfTwoVolumes,
			"of-csi-volume":  deleteOfCSIVolume,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t, newDeletion(t, e, name))
			})
		}
	})
}

func deleteLocked(t *testing.T, d *deletion) {
	d.Ceph.Run(t, "rbd", "lock", "add", d.image.String(), "backup")
	d.refused(t, "image is locked", d.image.String(), "backup", "rbd lock rm "+d.image.String())
	d.WantImage(t, d.image, true)
	var locks []struct{ ID, Locker string }
	d.Ceph.JSON(t, &locks, "rbd", "lock", "ls", d.image.String())
	d.Ceph.Run(t, "rbd", "lock", "rm", d.image.String(), locks[0].ID, locks[0].Locker)
	d.gone(t)
}

func deleteMirrored(t *testing.T, d *deletion) {
	d.Ceph.Run(t, "rbd", "mirror", "image", "enable", d.image.String(), "snapshot")
	command := "rbd mirror image disable " + d.image.String()
	d.refused(t, "image is mirrored", command)
	d.WantImage(t, d.image, true)
	d.Ceph.Run(t, "rbd", strings.Fields(command)[1:]...)
	d.gone(t)
}

// deleteMigrating: the data has moved to another name, and the volume's image is in the trash.
func deleteMigrating(t *testing.T, d *deletion) {
	d.Ceph.Run(t, "rbd", "migration", "prepare", d.image.String(), d.image.String()+"-moved")
	command := "rbd migration abort " + d.image.String()
	d.refused(t, "image is being migrated", command)
	d.Ceph.Run(t, "rbd", append(strings.Fields(command)[1:], "--no-progress")...)
	d.gone(t)
}

func deleteGrouped(t *testing.T, d *deletion) {
	group := d.Pool + "/nightly"
	d.Ceph.Run(t, "rbd", "group", "create", group)
	d.Ceph.Run(t, "rbd", "group", "image", "add", group, d.image.String())
	d.refused(t, "image is in a group", "nightly", "rbd group image rm")
	d.WantImage(t, d.image, true)
	d.Ceph.Run(t, "rbd", "group", "image", "rm", group, d.image.String())
	d.gone(t)
}

// secondVolume creates another volume with the same image, which is not mounted.
func (d *deletion) secondVolume(t *testing.T, name string, source corev1.PersistentVolumeSource) *corev1.PersistentVolume {
	t.Helper()
	volumes := d.Client.CoreV1().PersistentVolumes()
	volume, err := volumes.Create(t.Context(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: d.Namespace + "-" + name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        source,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	remove := func() error {
		err := volumes.Delete(context.Background(), volume.Name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	return volume
}

func (d *deletion) refusedForSecondVolume(t *testing.T, second *corev1.PersistentVolume) {
	t.Helper()
	d.refused(t, d.image.String()+" is also the image of volume "+second.Name)
	d.WantImage(t, d.image, true)
	if err := d.Client.CoreV1().PersistentVolumes().Delete(t.Context(), second.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	d.gone(t)
}

func deleteOfTwoVolumes(t *testing.T, d *deletion) {
	source := d.volume.Spec.PersistentVolumeSource.DeepCopy()
	slices.Reverse(source.RBD.CephMonitors)
	d.refusedForSecondVolume(t, d.secondVolume(t, "second", *source))
}

func deleteOfCSIVolume(t *testing.T, d *deletion) {
	d.refusedForSecondVolume(t, d.secondVolume(t, "csi", corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
		Driver: "rook-ceph.rbd.csi.ceph.com", VolumeHandle: d.image.Name,
		VolumeAttributes: map[string]string{"pool": d.image.Pool, "staticVolume": "true", "clusterID": "ceph"},
	}}))
}

// patchPolicy sets the reclaim policy of a volume.
func patchPolicy(t *testing.T, e *framework.Env, volume, policy string) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"persistentVolumeReclaimPolicy":%q}}`, policy)
	if _, err := e.Client.CoreV1().PersistentVolumes().Patch(t.Context(), volume, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestRetention deletes claims of classes that keep images in the trash.
func TestRetention(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	long, short := e.Class(t, "long", framework.Parameter("trashRetention", "24h")), e.Class(t, "short", framework.Parameter("trashRetention", "20s"))
	start(t, e, "--orphan-grace=1s") // sets the interval of trash scans to ten seconds
	claim := e.Claim(t, "long", long, framework.Size("32Mi"))
	volume := e.AwaitBound(t, claim)
	image := framework.ImageOf(volume)
	e.Ceph.Write(t, image)
	sum := sumOf(t, e, image, 32<<20)
	brief := e.AwaitBound(t, e.Claim(t, "short", short))
	for _, v := range []*corev1.PersistentVolume{volume, brief} {
		e.DeleteClaim(t, v.Spec.ClaimRef.Name)
		e.AwaitVolumeGone(t, v)
		e.WantImage(t, framework.ImageOf(v), false)
	}
	if trash, err := e.TryTrash(t.Context()); err != nil || len(trash) != 2 {
		t.Fatalf("in the trash are %q, %v, want both images", trash, err)
	}
	e.Await(t, "the image of the short retention to be removed", framework.Timeout, func(ctx context.Context) error {
		trash, err := e.TryTrash(ctx)
		if err == nil && !slices.Equal(trash, []string{image.Name}) {
			err = fmt.Errorf("in the trash are %q", trash)
		}
		return err
	})
	// Restore the image as in docs/expansion-and-clones.md.
	again := volume.DeepCopy()
	again.ObjectMeta = metav1.ObjectMeta{Name: volume.Name, Annotations: volume.Annotations}
	again.Spec.ClaimRef = nil
	again.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	again.Status = corev1.PersistentVolumeStatus{}
	again, err := e.Client.CoreV1().PersistentVolumes().Create(t.Context(), again, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e.AwaitEvent(t, again, framework.Timeout, "ImageRestored", image.String())
	second := e.Claim(t, "again", long, framework.Size("32Mi"), func(claim *corev1.PersistentVolumeClaim) { claim.Spec.VolumeName = volume.Name })
	e.AwaitBound(t, second)
	if got := sumOf(t, e, image, 32<<20); got != sum {
		t.Errorf("the restored image has other data: %s, want %s", got, sum)
	}
	if record := e.Record(t, image); record.Deleted != nil || record.ClaimUID != string(claim.UID) {
		t.Errorf("the restored image has the record %+v", record)
	}
	// It can be deleted like any other.
	patchPolicy(t, e, again.Name, "Delete")
	e.DeleteClaim(t, second.Name)
	e.AwaitVolumeGone(t, again)
	e.Ceph.Run(t, "rbd", "trash", "purge", "--no-progress", "--expired-before", time.Now().Add(48*time.Hour).Format("2006-01-02"), e.Pool)
}

// TestACompleteCloneIsBoundThoughItsSourceIsGone kills the provisioner each time it saves the
// volume of a clone, and deletes the source claim in between.
func TestACompleteCloneIsBoundThoughItsSourceIsGone(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "clones", framework.Parameter("fsType", "xfs"))
	p := start(t, e, "--leader-election=false")
	source := e.AwaitBound(t, e.Claim(t, "source", class, framework.Size("32Mi")))
	const size = 32 << 20
	e.Ceph.Write(t, framework.ImageOf(source))
	sum := sumOf(t, e, framework.ImageOf(source), size)
	p.Kill(t)

	gate := newRequestGate(t)
	clone := e.Claim(t, "clone", class, framework.Size("64Mi"), framework.CloneOf("source"))
	for range 2 {
		killWhenSaving(t, e, gate, clone)
		if _, err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Get(t.Context(), "source", metav1.GetOptions{}); err == nil {
			e.DeleteClaim(t, "source")
		}
	}
	start(t, e, "--leader-election=false", "--orphan-grace=1s")
	volume := e.AwaitBound(t, clone)
	if got := sumOf(t, e, framework.ImageOf(volume), size); got != sum {
		t.Errorf("the clone has other data than its source had")
	}
	if volume.Spec.RBD.FSType != "xfs" || !slices.Contains(volume.Spec.MountOptions, "nouuid") ||
		volume.Annotations["volume.alpha.kubernetes.io/pre-resize-capacity"] != "32Mi" {
		t.Errorf("the volume has file system %q, mount options %q, annotations %q", volume.Spec.RBD.FSType, volume.Spec.MountOptions, volume.Annotations)
	}
	e.AwaitVolumeGone(t, source)
	e.DeleteClaim(t, "clone")
	wantPoolEmpty(t, e)
}

// killWhenSaving runs a provisioner until it sends the claim's volume to the API server, and
// kills it before the request arrives.
func killWhenSaving(t *testing.T, e *framework.Env, gate *requestGate, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	victim := make(chan *framework.Process, 1)
	gate.killWhen(victim, func(r *http.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/persistentvolumes")
	})
	p := framework.Start(t, e, "--kubeconfig="+gate.kubeconfig, "--leader-election=false")
	victim <- p
	e.Await(t, "the provisioner to be killed", framework.Timeout, func(context.Context) error {
		if p.Running() {
			return errors.New("it is running")
		}
		return nil
	}, claim)
}

// TestVolumesOfOtherIdentitiesAreLeftAlone has volumes of two retired provisioners.
func TestVolumesOfOtherIdentitiesAreLeftAlone(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "retired")
	p := start(t, e, "--leader-election=false")
	volumes := map[string]*corev1.PersistentVolume{}
	for _, identity := range []string{"theirs", "adopted"} {
		volume := e.AwaitBound(t, e.Claim(t, identity, class))
		annotate(t, e, volume, map[string]string{"rbdProvisionerIdentity": identity})
		// Images of a retired provisioner have no record.
		e.Ceph.Run(t, "rbd", "image-meta", "remove", framework.ImageOf(volume).String(), rbdutil.MetaRecord)
		volumes[identity] = volume
	}
	p.Kill(t)
	start(t, e, "--leader-election=false", "--predecessor-identity=adopted")
	for identity := range volumes {
		e.DeleteClaim(t, identity)
	}
	e.AwaitVolumeGone(t, volumes["adopted"])
	theirs := volumes["theirs"]
	e.AwaitEvent(t, theirs, framework.Timeout, "VolumeFailedDelete", `identity "theirs"`, "--predecessor-identity=theirs")
	e.WantImage(t, framework.ImageOf(theirs), true)
	annotate(t, e, theirs, map[string]string{"rbdProvisionerIdentity": "adopted"})
	e.AwaitVolumeGone(t, theirs)
}

// TestOrphansWithDataAreReported has images without a claim or volume, as users and crashes
// leave them.
func TestOrphansWithDataAreReported(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "orphans")
	owner := e.Owner(t)
	orphan := func(uid string, change func(*rbdutil.Record)) rbdutil.ImageRef {
		ref := rbdutil.ImageRef{Pool: e.Pool, Name: "kubernetes-dynamic-pvc-" + uid}
		e.Ceph.Run(t, "rbd", "create", "--size", "8", "--image-feature", "layering", ref.String())
		record := rbdutil.Record{Owner: owner, Size: 8 << 20}
		record.ClaimUID, record.VolumeName = uid, "pvc-"+uid
		change(&record)
		e.SetRecord(t, ref, record.Encode())
		return ref
	}
	same := func(*rbdutil.Record) {}
	empty := orphan("00000000-0000-4000-8000-000000000001", same)
	written := orphan("00000000-0000-4000-8000-000000000002", func(r *rbdutil.Record) { r.VolumeName = "renamed" })
	elsewhere := orphan("00000000-0000-4000-8000-000000000003", func(r *rbdutil.Record) { r.ClusterID = "elsewhere" })
	rescue := orphan("src-rescue", same) // the prefix without a UUID
	unread := orphan("00000000-0000-4000-8000-000000000004", same)
	e.SetRecord(t, unread, `{"claimUID":"00000000-0000-4000-8000-000000000004","futureField":1}`)
	ofCSI := orphan("00000000-0000-4000-8000-000000000005", same)
	d := &deletion{Env: e}
	d.secondVolume(t, "csi", corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
		Driver: "rbd.csi.ceph.com", VolumeHandle: "any", VolumeAttributes: map[string]string{"pool": e.Pool, "imageName": ofCSI.Name},
	}})
	e.Ceph.Write(t, written)
	p := start(t, e, "--orphan-grace=1s", "--leader-election=false")
	storageClass, err := e.Client.StorageV1().StorageClasses().Get(t.Context(), class, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e.AwaitEvent(t, storageClass, framework.Timeout, "OrphanedImage", written.String(), "is kept", "rbd trash mv "+written.String())
	e.Await(t, "the empty orphan to be removed and the other to be counted", framework.Timeout, func(ctx context.Context) error {
		images, err := e.TryImages(ctx)
		if err != nil || slices.Contains(images, empty.Name) {
			return errors.Join(err, fmt.Errorf("the images are %q", images))
		}
		_, metrics, err := p.TryGet(ctx, "/metrics")
		if err == nil && !strings.Contains(metrics, "\nrbd_provisioner_orphaned_images 1\n") {
			err = errors.New("the metric rbd_provisioner_orphaned_images is not 1")
		}
		return err
	})
	for _, kept := range []rbdutil.ImageRef{written, elsewhere, rescue, unread, ofCSI} {
		e.WantImage(t, kept, true)
		e.RemoveImage(t, kept)
	}
}
