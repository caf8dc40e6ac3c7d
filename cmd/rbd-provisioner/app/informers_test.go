package app

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

var managedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}

func TestStripObject(t *testing.T) {
	t.Parallel()
	t.Run("a node keeps its name and volumes", func(t *testing.T) {
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
		wantStripped(t, full, want)
	})
	t.Run("other objects lose only their managed fields", func(t *testing.T) {
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
			wantStripped(t, full, want)
		}
	})
	t.Run("other values are unchanged", func(t *testing.T) {
		t.Parallel()
		tombstone := cache.DeletedFinalStateUnknown{Key: "a", Obj: exampleClaim("1")}
		wantStripped(t, tombstone, tombstone)
	})
}

func wantStripped(t *testing.T, full, want any) {
	t.Helper()
	got, err := stripObject(full)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stripped (-want +got):\n%s", diff)
	}
}

func TestReadinessNamesTheCacheThatIsNotSynced(t *testing.T) {
	t.Parallel()
	client := fake.NewSimpleClientset()
	client.PrependReactor("list", "storageclasses", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		return true, nil, apierrors.NewInternalError(errors.New("etcd is slow"))
	})
	caches := testInformers(t, client, 0)
	check := caches.check()
	if err := check.run(nil); err == nil || check.name != "informers" {
		t.Errorf("%s: ready before the start", check.name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	caches.start(ctx)
	for _, filled := range []cache.InformerSynced{
		caches.claims.Informer().HasSynced, caches.volumes.Informer().HasSynced, caches.nodes.Informer().HasSynced,
	} {
		if !cache.WaitForCacheSync(ctx.Done(), filled) {
			t.Fatal("a cache was not synced")
		}
	}
	const want = "StorageClasses have not been listed yet"
	if err := check.run(nil); err == nil || err.Error() != want {
		t.Errorf("check %v, want %s", err, want)
	}
	cancel()
	if caches.wait(ctx) {
		t.Error("wait reports that the caches are synced")
	}
	caches.factory.Shutdown()
}

func TestReadyWhenAllCachesAreSynced(t *testing.T) {
	t.Parallel()
	caches := testInformers(t, fake.NewSimpleClientset(), 0)
	check := caches.check()
	if err := check.run(nil); err == nil {
		t.Error("ready before the start")
	}
	ctx, cancel := context.WithCancel(t.Context())
	caches.start(ctx)
	if !caches.wait(ctx) {
		t.Error("the caches were not synced")
	}
	if err := check.run(nil); err != nil {
		t.Error(err)
	}
	cancel()
	caches.factory.Shutdown()
}
