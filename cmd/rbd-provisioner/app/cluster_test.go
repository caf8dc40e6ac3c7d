package app

import (
	"bytes"
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/apptest"
	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/library"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// cluster runs all controllers as Run does, with a fake Ceph and a fake API server. Its tests do not run
// in parallel, because each new library writes to the global scheme of client-go.
type cluster struct {
	client  *fake.Clientset
	ceph    *rbdfake.Ceph
	volumes watch.Interface
	events  chan *corev1.Event
	watched chan string // the resources for which a watch has started
	// orphanGrace is the option of new controllers. 0 disables the removal of orphans.
	orphanGrace time.Duration
}

// newCluster returns a cluster with a class, its secret and the given objects. No controller is running.
func newCluster(t *testing.T, objects ...apiruntime.Object) *cluster {
	t.Helper()
	c := &cluster{
		client: fake.NewSimpleClientset(append([]apiruntime.Object{exampleSecret(), exampleClass()}, objects...)...),
		ceph:   rbdfake.New("kube"),
		events: make(chan *corev1.Event, 1000), watched: make(chan string, 10),
	}
	var err error
	if c.volumes, err = c.client.CoreV1().PersistentVolumes().Watch(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.volumes.Stop)
	c.client.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := c.client.Tracker().Watch(action.GetResource(), action.GetNamespace())
		c.watched <- action.GetResource().Resource
		return true, w, err
	})
	c.client.PrependReactor("create", "events", func(action clienttesting.Action) (bool, apiruntime.Object, error) {
		event := action.(clienttesting.CreateAction).GetObject().(*corev1.Event)
		if strings.Contains(event.Message, exampleKey[:12]) {
			t.Errorf("an event contains the key: %s", event.Message)
		}
		c.events <- event.DeepCopy()
		return false, nil, nil
	})
	return c
}

// newControllers returns controllers with one worker.
func (c *cluster) newControllers(t *testing.T) *controllers {
	t.Helper()
	opts := testOptions()
	opts.RetryIntervalStart, opts.RetryIntervalMax, opts.WorkerThreads = time.Millisecond, 4*time.Millisecond, 1
	opts.OrphanGrace = c.orphanGrace
	events := newEvents(t.Context(), c.client, opts.ProvisionerName)
	t.Cleanup(events.shutdown)
	return newControllers(t.Context(), opts, deps{
		c.client, testInformers(t, c.client, opts.ResyncPeriod), rbdutil.NewImages(c.ceph), events.recorder, newMetrics(),
	})
}

// lead runs the controllers until stop is called or the test ends.
func (c *cluster) lead(t *testing.T) (inFlight *library.InFlight, stop func()) {
	t.Helper()
	r := c.newControllers(t)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r.informers.start(ctx)
	// The fake API server loses objects that are created between list and watch.
	for range 4 {
		apptest.Await(t, "the caches to watch", c.watched)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		apptest.Await(t, "the controllers to stop", ended)
		r.informers.factory.Shutdown()
		awaitQuiet(t)
	})
	t.Cleanup(stop)
	return r.inFlight, stop
}

// awaitDraining returns when new operations are rejected.
func awaitDraining(inFlight *library.InFlight) {
	for {
		end, ok := inFlight.Begin()
		if !ok {
			return
		}
		end()
		runtime.Gosched()
	}
}

// awaitQuiet waits for the workers of the library, because the library does not wait for them. They read
// the global scheme of client-go, which the next library writes.
func awaitQuiet(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	deadline := time.Now().Add(apptest.Patience)
	for bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("sig-storage-lib-external-provisioner/v10/controller.")) {
		if time.Now().After(deadline) {
			t.Fatal("the library does not end")
		}
		runtime.Gosched()
	}
	// Workers write metrics last. Reading them synchronises with the workers, also for the race detector.
	if _, err := legacyregistry.DefaultGatherer.Gather(); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) claim(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	if _, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// awaitVolume waits for the next event of a volume, which must have the given type.
func (c *cluster) awaitVolume(t *testing.T, want watch.EventType, uid types.UID) *corev1.PersistentVolume {
	t.Helper()
	for {
		event := apptest.Await(t, string(want)+" of volume pvc-"+string(uid), c.volumes.ResultChan())
		volume := event.Object.(*corev1.PersistentVolume)
		if event.Type == watch.Modified && want != watch.Modified {
			continue
		}
		if event.Type != want || volume.Name != "pvc-"+string(uid) {
			t.Fatalf("%s of volume %s, want %s of pvc-%s", event.Type, volume.Name, want, uid)
		}
		return volume
	}
}

// awaitServed waits for the volume of the claim and for the event after it, which is the last action of
// the library for a claim.
func (c *cluster) awaitServed(t *testing.T, uid types.UID) *corev1.PersistentVolume {
	t.Helper()
	volume := c.awaitVolume(t, watch.Added, uid)
	if event := c.awaitEvent(t, "ProvisioningSucceeded"); event.InvolvedObject.UID != uid {
		t.Errorf("event for %v", event.InvolvedObject)
	}
	return volume
}

// awaitEvent waits for an event with the reason.
func (c *cluster) awaitEvent(t *testing.T, reason string) *corev1.Event {
	t.Helper()
	for {
		if event := apptest.Await(t, "event "+reason, c.events); event.Reason == reason {
			return event
		}
	}
}

// release changes the volume as the controller manager does after the claim was deleted.
func (c *cluster) release(t *testing.T, volume *corev1.PersistentVolume) {
	t.Helper()
	volume = volume.DeepCopy()
	volume.Status.Phase = corev1.VolumeReleased
	if _, err := c.client.CoreV1().PersistentVolumes().UpdateStatus(t.Context(), volume, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) wantImages(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), c.ceph.Names()); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}
