package provisioner

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

func TestProvisionCanBeRetriedAfterEachFailure(t *testing.T) {
	t.Parallel()
	for name, test := range failures {
		for _, op := range []string{rbdfake.OpCreate, rbdfake.OpUpdate} {
			for when, after := range map[string]bool{"before": false, "after": true} {
				if test.err == rbdutil.ErrImageExists && op == rbdfake.OpCreate && after { //nolint:errorlint // the very same
					continue // the second attempt starts like this
				}
				t.Run(name+" "+when+" "+op, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					w.FailOnce(op, after, test.err)
					volume, state, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), fixture.Claim()))
					if err == nil {
						// An image that "exists" but does not is created at once.
						if !errors.Is(test.err, rbdutil.ErrImageExists) {
							t.Fatal("the failure was ignored")
						}
					} else if volume != nil || !errors.Is(err, test.err) {
						t.Fatalf("Provision = %v, %v, want %v", volume, err, test.err)
					}
					if op == rbdfake.OpUpdate && state != inBackground {
						t.Errorf("%v, though there is an image: a claim that is deleted now leaks it", state)
					}
					w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim()))
					w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
					if img := w.Image(t, fixture.ImageRef("1e7f")); img.Size != 1<<30 || img.Owner().ClaimUID != "1e7f" {
						t.Errorf("image %+v", img)
					}
				})
			}
		}
	}
}

func TestProvisionReturnsTheSameVolumeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim()))
	again := w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim()))
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("volume (-first +again):\n%s", diff)
	}
	w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
}

func TestProvisionAfterTheSecretWasCorrected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secrets := w.Client.CoreV1().Secrets("ceph")
	if _, err := secrets.Update(t.Context(), fixture.Secret("ceph", "admin", nil), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, state, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), fixture.Claim())); err == nil || state != noChange {
		t.Fatalf("%v, %v, want an error of the secret", state, err)
	}
	if _, err := secrets.Update(t.Context(), fixture.Secret("ceph", "admin", map[string]string{"key": fixture.AdminKey}), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim()))
}

func TestProvisionAfterTheClassWasReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.FailOnce(rbdfake.OpUpdate, false, rbdutil.ErrTimeout)
	if _, _, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), fixture.Claim())); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Fatalf("error %v, want %v", err, rbdutil.ErrTimeout)
	}
	class := fixture.Class(map[string]string{"imageFeatures": "layering,exclusive-lock", "objectSize": "1Mi"})
	w.provision(t, fixture.Options(class, fixture.Claim()))
	if img := w.Image(t, fixture.ImageRef("1e7f")); img.ObjectSize != 1<<20 || img.Features != rbdutil.Layering|rbdutil.ExclusiveLock {
		t.Errorf("image %+v has the parameters of the old class", img)
	}
}

func TestConcurrentCallsForOneClaimCreateOneImage(t *testing.T) {
	t.Parallel()
	const callers = 16
	w := newWorld(t)
	// All calls have read the image and none has created it yet.
	var arrived sync.WaitGroup
	arrived.Add(callers)
	w.Ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpCreate {
			arrived.Done()
			arrived.Wait()
		}
		return nil
	}
	volumes := make([]*corev1.PersistentVolume, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Add(1)
		go func() {
			defer all.Done()
			volume, state, err := w.Provision(t.Context(), fixture.Options(fixture.Class(nil), fixture.Claim()))
			if err != nil || state != finished {
				t.Errorf("Provision: %v, %v", state, err)
			}
			volumes[i] = volume
		}()
	}
	all.Wait()
	for _, volume := range volumes[1:] {
		if diff := cmp.Diff(volumes[0], volume); diff != "" {
			t.Errorf("volumes (-one +another):\n%s", diff)
		}
	}
	w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
}
