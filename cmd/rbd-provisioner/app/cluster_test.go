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

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// The whole controller, put together as Run does it: the library and its queues, our
// options for it, the caches and the drainer, over a Ceph and an API server in memory.
//
// None of these tests runs beside others: each new library writes to client-go's
// global scheme.

type cluster struct {
	client  *fake.Clientset
	ceph    *rbdfake.Ceph
	volumes watch.Interface
	events  chan *corev1.Event
	watched chan string // the resources of which somebody has begun to watch
	// orphanGrace is that of replicas to come; 0 for no sweeping.
	orphanGrace time.Duration
}

// newCluster is a cluster without a controller, with a class, its secret and the
// objects given.
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
			t.Errorf("an event shows the key: %s", event.Message)
		}
		c.events <- event.DeepCopy()
		return false, nil, nil
	})
	return c
}

// newReplica is a replica with one worker.
func (c *cluster) newReplica(t *testing.T) *replica {
	t.Helper()
	opts := testOptions()
	opts.RetryIntervalStart, opts.RetryIntervalMax, opts.WorkerThreads = time.Millisecond, 4*time.Millisecond, 1
	opts.OrphanGrace = c.orphanGrace
	events := newEvents(t.Context(), c.client, opts.ProvisionerName)
	t.Cleanup(events.shutdown)
	return newReplica(t.Context(), opts, parts{
		c.client, testInformers(t, c.client, opts.ResyncPeriod), rbdutil.NewImages(c.ceph), events.recorder, newMetrics(),
	})
}

// lead runs a replica until it is stopped or the test ends. It returns what does its
// work, too.
func (c *cluster) lead(t *testing.T) (work *drainer, stop func()) {
	t.Helper()
	r := c.newReplica(t)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r.informers.start(ctx)
	// What is created between a cache's list and its watch is lost on a fake API server.
	for range 4 {
		await(t, "the caches to watch", c.watched)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.lead(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		await(t, "the controller to stop", ended)
		r.informers.factory.Shutdown()
		awaitQuiet(t)
	})
	t.Cleanup(stop)
	return r.work, stop
}

// awaitQuiet returns when nothing of a library runs any more, which does not wait for
// its own workers. The next one writes to client-go's global scheme, which workers read.
func awaitQuiet(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	deadline := time.Now().Add(patience)
	for bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("sig-storage-lib-external-provisioner/v10/controller.")) {
		if time.Now().After(deadline) {
			t.Fatal("the library does not come to an end")
		}
		runtime.Gosched()
	}
	// The last that a worker does is to observe how long it took. Whoever looks at
	// that comes after it, in the eyes of the race detector too.
	if _, err := legacyregistry.DefaultGatherer.Gather(); err != nil {
		t.Fatal(err)
	}
}

// claim creates a claim.
func (c *cluster) claim(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	if _, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// awaitVolume waits for the next change of a volume, which must be of that type.
func (c *cluster) awaitVolume(t *testing.T, want watch.EventType, uid types.UID) *corev1.PersistentVolume {
	t.Helper()
	for {
		event := await(t, string(want)+" of volume pvc-"+string(uid), c.volumes.ResultChan())
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

// awaitServed waits for the claim's volume and for the event that comes after it, with
// which the library has done all that it does for a claim.
func (c *cluster) awaitServed(t *testing.T, uid types.UID) *corev1.PersistentVolume {
	t.Helper()
	volume := c.awaitVolume(t, watch.Added, uid)
	if event := c.awaitEvent(t, "ProvisioningSucceeded"); event.InvolvedObject.UID != uid {
		t.Errorf("event for %v", event.InvolvedObject)
	}
	return volume
}

// awaitEvent waits for an event of that reason.
func (c *cluster) awaitEvent(t *testing.T, reason string) *corev1.Event {
	t.Helper()
	for {
		if event := await(t, "event "+reason, c.events); event.Reason == reason {
			return event
		}
	}
}

// release does what the controller manager does when a volume's claim is gone.
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
