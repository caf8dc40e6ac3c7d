package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

var managedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}

func TestTrimKeepsWhatIsRead(t *testing.T) {
	t.Parallel()
	t.Run("of a node, its name and volumes", func(t *testing.T) {
		t.Parallel()
		status := corev1.NodeStatus{
			VolumesInUse:    []corev1.UniqueVolumeName{"a"},
			VolumesAttached: []corev1.AttachedVolume{{Name: "a", DevicePath: "/dev/rbd0"}},
		}
		full := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{
				Name: "node-a", UID: "1", ResourceVersion: "7", Labels: map[string]string{"a": "b"}, ManagedFields: managedFields,
			},
			Spec:   corev1.NodeSpec{PodCIDR: "10.0.0.0/24"},
			Status: status,
		}
		full.Status.Images = []corev1.ContainerImage{{Names: []string{"pause"}}}
		full.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}}
		want := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a", UID: "1", ResourceVersion: "7"}, Status: status}
		wantTrimmed(t, full, want)
	})
	t.Run("of the others, all but who wrote which field", func(t *testing.T) {
		t.Parallel()
		claim, class := exampleClaim("1"), exampleClass()
		volume := &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Finalizers: []string{"a"}, Annotations: map[string]string{"a": "b"}},
			Status:     corev1.PersistentVolumeStatus{Phase: corev1.VolumeReleased},
		}
		for _, want := range []interface {
			apiruntime.Object
			metav1.Object
		}{claim, class, volume} {
			full := want.DeepCopyObject().(metav1.Object)
			full.SetManagedFields(managedFields)
			wantTrimmed(t, full, want)
		}
	})
	t.Run("what is no object passes", func(t *testing.T) {
		t.Parallel()
		tombstone := cache.DeletedFinalStateUnknown{Key: "a", Obj: exampleClaim("1")}
		wantTrimmed(t, tombstone, tombstone)
	})
}

func wantTrimmed(t *testing.T, full, want any) {
	t.Helper()
	got, err := trim(full)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("trimmed (-want +got):\n%s", diff)
	}
}

func TestReadinessNamesTheCacheThatIsMissing(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	client.PrependReactor("list", "storageclasses", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		return true, nil, apierrors.NewInternalError(errors.New("etcd is slow"))
	})
	caches := testInformers(t, client, 0)
	check := caches.check()
	if err := check.run(nil); err == nil || check.name != "informers" {
		t.Errorf("%s: ready before it has begun", check.name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	caches.start(ctx)
	for _, filled := range []cache.InformerSynced{
		caches.claims.Informer().HasSynced, caches.volumes.Informer().HasSynced, caches.nodes.Informer().HasSynced,
	} {
		if !cache.WaitForCacheSync(ctx.Done(), filled) {
			t.Fatal("a cache was not filled")
		}
	}
	const want = "StorageClasses have not been listed yet"
	if err := check.run(nil); err == nil || err.Error() != want {
		t.Errorf("check %v, want %s", err, want)
	}
	cancel()
	if caches.wait(ctx) {
		t.Error("the caches are said to be filled")
	}
	caches.factory.Shutdown()
}

func TestReadyWhenAllCachesAreFilled(t *testing.T) {
	t.Parallel()
	caches := testInformers(t, fake.NewSimpleClientset(), 0)
	check := caches.check()
	if err := check.run(nil); err == nil {
		t.Error("ready before it has begun")
	}
	ctx, cancel := context.WithCancel(t.Context())
	caches.start(ctx)
	if !caches.wait(ctx) {
		t.Error("the caches were not filled")
	}
	if err := check.run(nil); err != nil {
		t.Error(err)
	}
	cancel()
	caches.factory.Shutdown()
}

func TestOurEventsReachTheAPIServer(t *testing.T) {
	// Not beside others, so that what is left at its end is its own.
	before := goleak.IgnoreCurrent()
	client := fake.NewSimpleClientset()
	created := make(chan *corev1.Event, 1)
	client.PrependReactor("create", "events", func(action clienttesting.Action) (bool, apiruntime.Object, error) {
		created <- action.(clienttesting.CreateAction).GetObject().(*corev1.Event)
		return false, nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	events := newEvents(ctx, client, "ceph.com/rbd")
	cancel() // what is still sent while stopping must get out
	events.recorder.Event(exampleClaim("1"), corev1.EventTypeWarning, "InvalidUserSecret", "it is empty")
	event := await(t, "the event", created)
	got := strings.Join([]string{
		event.Namespace, event.InvolvedObject.Kind, event.InvolvedObject.Name, event.Source.Component, event.Type, event.Reason, event.Message,
	}, " ")
	if want := "shop PersistentVolumeClaim www-1 ceph.com/rbd Warning InvalidUserSecret it is empty"; got != want {
		t.Errorf("event %q, want %q", got, want)
	}
	events.shutdown()
	goleak.VerifyNone(t, before)
}

func TestClusterID(t *testing.T) {
	t.Parallel()
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "cluster-1"}}
	namespaces := corev1.Resource("namespaces")
	for name, test := range map[string]struct {
		objects []apiruntime.Object
		fail    error
		want    string
		err     string
	}{
		"it is the UID of kube-system": {objects: []apiruntime.Object{system}, want: "cluster-1"},
		"a namespace that there is not": {
			err: `read the UID of namespace kube-system (or give --cluster-id): namespaces "kube-system" not found`},
		"one that may not be read": {
			fail: apierrors.NewForbidden(namespaces, "kube-system", errors.New("no rule")),
			err:  `read the UID of namespace kube-system (or give --cluster-id): namespaces "kube-system" is forbidden: no rule`},
		"an identity that is not known": {
			fail: apierrors.NewUnauthorized("no token"), err: "read the UID of namespace kube-system (or give --cluster-id): no token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewSimpleClientset(test.objects...)
			failNamespaces(client, func() error { return test.fail })
			id, err := clusterID(t.Context(), client, 0)
			if id != test.want || (err == nil) != (test.err == "") || (err != nil && err.Error() != test.err) {
				t.Errorf("clusterID = %q, %v, want %q, %s", id, err, test.want, test.err)
			}
		})
	}
}

func TestClusterIDWaitsForTheAPIServerUntilItIsStopped(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"starting":                            apierrors.NewServiceUnavailable("starting"),
		"started, without its rules read yet": apierrors.NewForbidden(corev1.Resource("namespaces"), "kube-system", errors.New("no rule")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewSimpleClientset()
			ctx, cancel := context.WithCancel(t.Context())
			failNamespaces(client, func() error {
				cancel()
				return failure
			})
			if id, err := clusterID(ctx, client, time.Hour); id != "" || !errors.Is(err, context.Canceled) {
				t.Errorf("clusterID = %q, %v, want %v", id, err, context.Canceled)
			}
		})
	}
}

func failNamespaces(client *fake.Clientset, fail func() error) {
	client.PrependReactor("get", "namespaces", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		if err := fail(); err != nil {
			return true, &corev1.Namespace{}, err
		}
		return false, nil, nil
	})
}

func TestNoAPIServerIsAFailureToStart(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.Kubeconfig = filepath.Join(t.TempDir(), "lost")
	if _, err := newClients(opts); err == nil || !errors.Is(err, os.ErrNotExist) ||
		!strings.HasPrefix(err.Error(), "find the Kubernetes API server (give --kubeconfig outside a cluster): ") {
		t.Errorf("error %v", err)
	}
}

func TestClientsOfTheirOwnForWorkAndLease(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.Master = "http://127.0.0.1:1"
	opts.KubeAPIQPS = 3
	clients, err := newClients(opts)
	if err != nil {
		t.Fatal(err)
	}
	work, lease := clients.work.CoreV1().RESTClient().GetRateLimiter(), clients.lease.CoordinationV1().RESTClient().GetRateLimiter()
	if work == lease || work.QPS() != 3 || lease.QPS() == 3 {
		t.Errorf("a busy provisioner would starve its lease: %v, %v requests a second", work.QPS(), lease.QPS())
	}
	if other := clients.work.StorageV1().RESTClient().GetRateLimiter(); other != work {
		t.Error("the work has a limit for each group of the API, not one for all")
	}
}
