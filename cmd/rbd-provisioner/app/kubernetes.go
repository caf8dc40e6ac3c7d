package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientinformers "k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	storageinformers "k8s.io/client-go/informers/storage/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
)

// clients talk to the API server: one for the work, one for the lease alone.
type clients struct {
	work, lease kubernetes.Interface
}

func newClients(opts *Options) (clients, error) {
	config, err := clientcmd.BuildConfigFromFlags(opts.Master, opts.Kubeconfig)
	if err != nil {
		return clients{}, fmt.Errorf("find the Kubernetes API server (give --kubeconfig outside a cluster): %w", err)
	}
	config.UserAgent = "rbd-provisioner/" + version
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	// Every rbd volume earns the same warning of its deprecation; once is enough.
	config.WarningHandler = rest.NewWarningWriter(klogWriter{}, rest.WarningWriterOptions{Deduplicate: true})

	lease := rest.CopyConfig(config)
	lease.Timeout = opts.LeaderElection.requestTimeout()
	// Requests for the lease are few, but must not wait for each other.
	lease.QPS, lease.Burst = 50, 100
	// With HTTP/1.1 a request that times out closes its connection; one of HTTP/2 would be used
	// again, also where a load balancer has other API servers.
	lease.NextProtos = []string{"http/1.1"}
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(opts.KubeAPIQPS, opts.KubeAPIBurst)
	var c clients
	if c.work, err = kubernetes.NewForConfig(config); err != nil {
		return clients{}, fmt.Errorf("make a Kubernetes client: %w", err)
	}
	if c.lease, err = kubernetes.NewForConfig(lease); err != nil {
		return clients{}, fmt.Errorf("make a Kubernetes client: %w", err)
	}
	return c, nil
}

// klogWriter logs what the API server warns of.
type klogWriter struct{}

// Write implements io.Writer.
func (klogWriter) Write(line []byte) (int, error) {
	klog.Background().Info("Warning of the Kubernetes API server", "warning", strings.TrimSpace(string(line)))
	return len(line), nil
}

// informers are the caches that the library and the provisioner read. They run from
// the start, so that a replica that comes to lead has them filled.
type informers struct {
	factory clientinformers.SharedInformerFactory
	claims  coreinformers.PersistentVolumeClaimInformer
	volumes coreinformers.PersistentVolumeInformer
	nodes   coreinformers.NodeInformer
	classes storageinformers.StorageClassInformer
	// What the library hears of.
	claimEvents, volumeEvents *deferredHandlers
}

func newInformers(client kubernetes.Interface, resync time.Duration) (*informers, error) {
	factory := clientinformers.NewSharedInformerFactoryWithOptions(client, resync,
		clientinformers.WithTransform(trim))
	i := &informers{
		factory: factory,
		claims:  factory.Core().V1().PersistentVolumeClaims(),
		volumes: factory.Core().V1().PersistentVolumes(),
		nodes:   factory.Core().V1().Nodes(),
		classes: factory.Storage().V1().StorageClasses(),
	}
	if err := i.volumes.Informer().AddIndexers(pvindex.Indexers()); err != nil {
		return nil, fmt.Errorf("index PersistentVolumes: %w", err)
	}
	i.claimEvents = &deferredHandlers{SharedIndexInformer: i.claims.Informer()}
	i.volumeEvents = &deferredHandlers{SharedIndexInformer: i.volumes.Informer()}
	return i, nil
}

// observedVolumes is the volumes' informer as the library sees it: a cache of what the
// API server has said, and of nothing else. The library itself would put each volume
// that it has saved into the cache, where that takes the place of what has become of
// the volume since: of one that is released at once, the end would never be seen.
// (The library does without it from v11 on.)
type observedVolumes struct{ cache.SharedIndexInformer }

// GetStore implements cache.SharedInformer.
func (v observedVolumes) GetStore() cache.Store {
	return observedStore{v.SharedIndexInformer.GetStore()}
}

type observedStore struct{ cache.Store }

// Add implements cache.Store.
func (observedStore) Add(any) error { return nil }

// trim keeps of each object what somebody reads: of a node, which volumes it has; of
// the others, everything but the record of who changed which field.
func trim(obj any) (any, error) {
	if node, ok := obj.(*corev1.Node); ok {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion},
			Status:     corev1.NodeStatus{VolumesInUse: node.Status.VolumesInUse, VolumesAttached: node.Status.VolumesAttached},
		}, nil
	}
	if object, err := meta.Accessor(obj); err == nil {
		object.SetManagedFields(nil)
	}
	return obj, nil
}

func (i *informers) start(ctx context.Context) {
	i.factory.Start(ctx.Done())
}

// wait returns when every cache has been filled once, or false when ctx is done first.
func (i *informers) wait(ctx context.Context) bool {
	for _, synced := range i.factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return false
		}
	}
	return true
}

// attachHandlers lets the library hear of claims and volumes.
func (i *informers) attachHandlers() error {
	return errors.Join(i.claimEvents.attachHandlers(), i.volumeEvents.attachHandlers())
}

// check fails until every cache has been filled once.
func (i *informers) check() check {
	return check{name: "informers", run: func(*http.Request) error {
		for name, synced := range map[string]func() bool{
			"PersistentVolumeClaims": i.claims.Informer().HasSynced,
			"PersistentVolumes":      i.volumes.Informer().HasSynced,
			"StorageClasses":         i.classes.Informer().HasSynced,
			"Nodes":                  i.nodes.Informer().HasSynced,
		} {
			if !synced() {
				return fmt.Errorf("%s have not been listed yet", name)
			}
		}
		return nil
	}}
}

// events send our own events, beside those of the library.
type events struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

func newEvents(ctx context.Context, client kubernetes.Interface, component string) *events {
	broadcaster := record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)))
	broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: client.CoreV1().Events(corev1.NamespaceAll)})
	return &events{
		broadcaster: broadcaster,
		recorder:    broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component}),
	}
}

func (e *events) shutdown() { e.broadcaster.Shutdown() }
