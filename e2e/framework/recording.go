package framework

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// Recording is a file with all versions of all events, claims, volumes and classes of the
// cluster. It allows checks after a test has deleted its objects.
type Recording struct {
	factory clientinformers.SharedInformerFactory
	stop    context.CancelFunc

	mu   sync.Mutex
	file *os.File
	err  error // the first write error
}

// StartRecording starts a recording that continues after the test, which is the first of
// several.
func StartRecording(t *testing.T, path string) *Recording {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Recording{factory: clientinformers.NewSharedInformerFactory(connect(t), 0), stop: stop, file: file}
	for _, resource := range []schema.GroupVersionResource{
		corev1.SchemeGroupVersion.WithResource("events"),
		corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"),
		corev1.SchemeGroupVersion.WithResource("persistentvolumes"),
		storagev1.SchemeGroupVersion.WithResource("storageclasses"),
	} {
		informer, err := r.factory.ForResource(resource)
		if err != nil {
			t.Fatal(err)
		}
		_, err = informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: r.write, UpdateFunc: func(_, now any) { r.write(now) },
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	r.factory.Start(ctx.Done())
	r.factory.WaitForCacheSync(ctx.Done())
	return r
}

func (r *Recording) write(object any) {
	data, err := json.Marshal(object)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		_, err = r.file.Write(append(data, '\n'))
	}
	if r.err == nil {
		r.err = err
	}
}

// Stop stops the recording. An error means that it is incomplete.
func (r *Recording) Stop() error {
	r.stop()
	r.factory.Shutdown()
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.err, r.file.Close())
}
