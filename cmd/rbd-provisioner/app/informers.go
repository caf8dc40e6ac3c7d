package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientinformers "k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	storageinformers "k8s.io/client-go/informers/storage/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/library"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
)

// informers are the caches of the library and the provisioner. They run from the start, so that the
// caches of a standby are filled when it becomes the leader.
type informers struct {
	factory clientinformers.SharedInformerFactory
	claims  coreinformers.PersistentVolumeClaimInformer
	volumes coreinformers.PersistentVolumeInformer
	nodes   coreinformers.NodeInformer
	classes storageinformers.StorageClassInformer
	// The same informers for the library.
	libraryClaims, libraryVolumes *library.DeferredHandlers
}

func newInformers(client kubernetes.Interface, resync time.Duration) (*informers, error) {
	factory := clientinformers.NewSharedInformerFactoryWithOptions(client, resync,
		clientinformers.WithTransform(stripObject))
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
	i.libraryClaims = &library.DeferredHandlers{SharedIndexInformer: i.claims.Informer()}
	i.libraryVolumes = &library.DeferredHandlers{SharedIndexInformer: i.volumes.Informer()}
	return i, nil
}

// stripObject removes unused fields to save memory. It keeps the volumes of nodes, and everything but
// the managed fields of other objects.
func stripObject(obj any) (any, error) {
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

// wait returns when all caches are synced. It reports false if ctx is done first.
func (i *informers) wait(ctx context.Context) bool {
	for _, synced := range i.factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return false
		}
	}
	return true
}

// attachHandlers starts sending events of claims and volumes to the library.
func (i *informers) attachHandlers() error {
	return errors.Join(i.libraryClaims.AttachHandlers(), i.libraryVolumes.AttachHandlers())
}

// check fails until all caches are synced.
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
