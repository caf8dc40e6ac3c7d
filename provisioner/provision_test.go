package provisioner

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

func TestProvisionCreatesTheImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Ceph.Before = func(_ context.Context, op string, c rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if c.String() != "Ceph at 10.0.0.1:6789,10.0.0.2:6789 as client.kube" || c.Key.Reveal() != fixture.AdminKey {
			t.Errorf("%s on %s, or with another key", op, c)
		}
		return nil
	}
	class := fixture.Class(map[string]string{"imageFeatures": "layering,exclusive-lock", "objectSize": "1Mi", "dataPool": "data"})
	w.provision(t, fixture.Options(class, fixture.Claim(fixture.Requesting("1G"))))
	want := rbdutil.Image{
		ImageRef: fixture.ImageRef("1e7f"), Size: 954 << 20, ObjectSize: 1 << 20,
		Features: rbdutil.Layering | rbdutil.ExclusiveLock | 1<<7, // data-pool, which Ceph adds
		Record:   fixture.Record(954 << 20),
	}
	w.Ceph.Before = nil
	if diff := cmp.Diff(want, w.Image(t, fixture.ImageRef("1e7f"))); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
}

func TestProvisionFailsWithoutARequestToCeph(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		class map[string]string
		claim func(*corev1.PersistentVolumeClaim)
		err   string
	}{
		"a class that is wrong": {
			class: map[string]string{"imageFormat": "1", "monitors": "a b"},
			err: `StorageClass rbd is invalid (replace it; the claim will be retried automatically): [parameters.monitors: Invalid value: "a b": "a b": monitors must be separated by commas, ` +
				`parameters.imageFormat: Unsupported value: "1": supported values: "2"]`,
		},
		"a claim that is wrong": {
			claim: fixture.Requesting("0"),
			err:   `claim: spec.resources.requests.storage: Invalid value: "0": requested size is too small, minimum is 1Mi`,
		},
		"a secret that is not there": {
			class: map[string]string{"adminSecretName": "lost"},
			err:   "admin secret ceph/lost does not exist: create it with the output of `ceph auth get-key` under \"key\"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
				t.Errorf("request to Ceph: %s", op)
				return nil
			}
			claim := fixture.Claim()
			if test.claim != nil {
				test.claim(claim)
			}
			volume, state, err := w.Provision(t.Context(), fixture.Options(fixture.Class(test.class), claim))
			if volume != nil || state != noChange || fixture.TextOf(err) != test.err {
				t.Errorf("Provision = %v, %v, %v\nwant error %s", volume, state, err, test.err)
			}
		})
	}
}

func TestProvisionReportsTheErrorsOfCeph(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		class map[string]string
		there *rbdutil.Image
		fail  error
		state controller.ProvisioningState
		err   string
	}{
		"no pool": {
			class: map[string]string{"pool": "lost"}, state: noChange,
			err: "open pool lost: pool not found: create pool lost (`ceph osd pool create`, `rbd pool init`) or name another pool in the class",
		},
		"no data pool": {
			class: map[string]string{"dataPool": "lost"}, state: noChange,
			err: "create image kube/kubernetes-dynamic-pvc-1e7f: data pool not found: lost: create data pool lost or name another data pool in the class",
		},
		"no rights": {
			fail: rbdutil.ErrAccessDenied, state: noChange,
			err: "access denied by Ceph: check that secret ceph/admin holds the key of client.kube and that its capabilities include " +
				"mon 'profile rbd' and osd 'profile rbd pool=kube' (`ceph auth get client.kube`)",
		},
		"an image of another's": {
			there: &rbdutil.Image{Size: 1 << 20}, state: finished,
			err: "image has another owner: kube/kubernetes-dynamic-pvc-1e7f already exists for no known owner",
		},
		"our image of another size": {
			there: &rbdutil.Image{Size: 1 << 20, Features: rbdutil.Layering, Record: fixture.Record(1 << 20)},
			state: inBackground,
			err:   "image does not match the request: kube/kubernetes-dynamic-pvc-1e7f already exists with a size of 1048576 bytes, requested are 1073741824",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if test.there != nil {
				test.there.ImageRef = fixture.ImageRef("1e7f")
				w.Ceph.Put(*test.there)
			}
			if test.fail != nil {
				w.Ceph.Before = func(context.Context, string, rbdutil.Cluster, rbdutil.ImageRef) error { return test.fail }
			}
			volume, state, err := w.Provision(t.Context(), fixture.Options(fixture.Class(test.class), fixture.Claim()))
			if volume != nil || state != test.state || fixture.TextOf(err) != test.err {
				t.Errorf("Provision = %v, %v, %v\nwant %v, %s", volume, state, err, test.state, test.err)
			}
			fixture.WantNoKey(t, fixture.TextOf(err))
		})
	}
}

func TestProvisionTimesOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Timeout = 10 * time.Millisecond
	w.Ceph.Before = func(ctx context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpUpdate {
			<-ctx.Done() // then the fake returns, as Ceph does
		}
		return nil
	}
	_, state, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), fixture.Claim()))
	if state != inBackground || !errors.Is(err, rbdutil.ErrTimeout) || !errors.Is(err, rbdutil.ErrIncomplete) {
		t.Errorf("%v, %v, want %v and a timeout", state, err, inBackground)
	}
	want := "image is not complete: update image kube/kubernetes-dynamic-pvc-1e7f: Ceph did not answer in time: " +
		"check the cluster's health (`ceph -s`) and the osd capabilities of client.kube (`ceph auth get client.kube`); will be retried automatically"
	if fixture.TextOf(err) != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}
	w.Ceph.Before, w.Timeout = nil, time.Minute
	w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim()))
	w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
}

func TestClaimsOfOneNameGetDifferentImages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Ceph.AddPool("fast")
	of := func(uid types.UID) *corev1.PersistentVolumeClaim {
		return fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.UID = uid })
	}
	w.provision(t, fixture.Options(fixture.Class(nil), of("1")))
	w.provision(t, fixture.Options(fixture.Class(nil), of("2")))                               // created again
	w.provision(t, fixture.Options(fixture.Class(map[string]string{"pool": "fast"}), of("3"))) // with another class
	w.WantImages(t, "fast/kubernetes-dynamic-pvc-3", "kube/kubernetes-dynamic-pvc-1", "kube/kubernetes-dynamic-pvc-2")
}

func TestClustersThatShareAPoolDoNotShareImages(t *testing.T) {
	t.Parallel()
	here, there := newWorld(t), newWorld(t)
	there.Images, there.Clusters.ClusterID = here.Images, "there"
	here.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim()))
	before := here.Image(t, fixture.ImageRef("1e7f"))
	// A claim with the same UID, for example restored from a backup.
	_, state, err := there.Provision(t.Context(), fixture.Options(fixture.Class(nil), fixture.Claim()))
	if state != finished || !errors.Is(err, rbdutil.ErrForeignImage) {
		t.Errorf("%v, %v, want %v, %v", state, err, finished, rbdutil.ErrForeignImage)
	}
	if diff := cmp.Diff(before, here.Image(t, fixture.ImageRef("1e7f"))); diff != "" {
		t.Errorf("the other's image was changed (-before +after):\n%s", diff)
	}
}
