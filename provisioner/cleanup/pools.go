package cleanup

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// poolKey identifies a pool, whatever the credentials.
type poolKey struct{ monitors, name string }

func keyOf(c rbdutil.Cluster, pool string) poolKey {
	return poolKey{strings.Join(c.Monitors, ","), pool}
}

// poolAccess is a pool with the credentials for it.
type poolAccess struct {
	cluster rbdutil.Cluster
	name    string
	// object is the class or volume that names the pool. It gets the events.
	object runtime.Object
}

func (p poolAccess) key() poolKey { return keyOf(p.cluster, p.name) }

func (p poolAccess) ref(image string) rbdutil.ImageRef {
	return rbdutil.ImageRef{Pool: p.name, Name: image}
}

// pools returns the pools of our classes and volumes. It skips a class or volume that is
// invalid or has no readable secret: provisioning and deletion report that.
func (o *OrphanCollector) pools(ctx context.Context, volumes []*corev1.PersistentVolume) []poolAccess {
	var pools []poolAccess
	seen := sets.New[poolKey]()
	add := func(object runtime.Object, monitors []string, name string, connect func() (rbdutil.Cluster, error)) {
		key := keyOf(rbdutil.Cluster{Monitors: monitors}, name)
		if seen.Has(key) {
			return
		}
		if cluster, err := connect(); err == nil {
			seen.Insert(key)
			pools = append(pools, poolAccess{cluster, name, object})
		}
	}
	classes, err := o.Clusters.Classes.List(labels.Everything())
	if err != nil {
		klog.FromContext(ctx).Error(err, "Failed to list StorageClasses")
	}
	for _, class := range classes {
		if params, errs := storageclass.Parse(class.Parameters); class.Provisioner == o.Clusters.Provisioner && len(errs) == 0 {
			add(class, params.Monitors, params.Pool, func() (rbdutil.Cluster, error) { return o.Clusters.ForClass(ctx, params) })
		}
	}
	for _, volume := range volumes {
		if o.Clusters.IsManaged(volume) {
			add(volume, volume.Spec.RBD.CephMonitors, volume.Spec.RBD.RBDPool, func() (rbdutil.Cluster, error) {
				target, err := o.Clusters.ForVolume(ctx, volume)
				return target.Cluster, err
			})
		}
	}
	return pools
}
