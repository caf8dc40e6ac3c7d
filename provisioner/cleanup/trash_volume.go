package cleanup

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Watch cleans the trash when a volume whose deletion was begun is gone, and when its
// deletion is cancelled.
func (t *TrashCleaner) Watch(ctx context.Context, volumes cache.SharedInformer) error {
	_, err := volumes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, obj any) {
			if volume, ok := obj.(*corev1.PersistentVolume); ok && !pvindex.IsDeletable(volume) {
				t.settle(ctx, volume)
			}
		},
		DeleteFunc: func(obj any) {
			if tombstone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = tombstone.Obj
			}
			if volume, ok := obj.(*corev1.PersistentVolume); ok {
				t.settle(ctx, volume)
			}
		},
	})
	return err
}

// settle cleans the trash after a volume is gone or its deletion is cancelled.
func (t *TrashCleaner) settle(ctx context.Context, volume *corev1.PersistentVolume) {
	t.mu.Lock()
	pool, ok := t.pending[volume.Name]
	delete(t.pending, volume.Name)
	cancelled := ok && !pvindex.IsDeletable(volume)
	if cancelled {
		t.cancelled[volume.Name] = cancellation{volume, time.Now()}
	}
	t.mu.Unlock()
	if ok {
		t.Clean(ctx, pool.cluster, pool.name)
	}
	if cancelled { // the move to the trash may still be running
		time.AfterFunc(trashRetry, func() { t.Clean(ctx, pool.cluster, pool.name) })
	}
}

// cancelledDeletion returns the volume if its deletion was cancelled, or nil.
func (t *TrashCleaner) cancelledDeletion(volume string) *corev1.PersistentVolume {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cancelled[volume].volume
}

// MayRelease returns an error if the image of a volume may be in the trash although the
// volume is not to be deleted: its policy was changed after its deletion was begun, perhaps
// by an earlier leader. The volume must keep its finalizer until the trash was searched.
// Without the volume, the image in the trash would be removed.
func (t *TrashCleaner) MayRelease(ctx context.Context, name string) error {
	object, exists, err := t.Index.GetByKey(name)
	if err != nil || !exists {
		return err
	}
	volume, ok := object.(*corev1.PersistentVolume)
	if !ok || !mayBeCancelled(volume) {
		return nil
	}
	source := volume.Spec.RBD
	t.mu.Lock()
	p := t.pools[keyOf(rbdutil.Cluster{Monitors: source.CephMonitors}, source.RBDPool)]
	asked, again := t.asked[name]
	if again && p != nil && p.searched.After(asked) && !p.unsettled.Has(source.RBDImage) {
		delete(t.asked, name)
		t.mu.Unlock()
		return nil
	}
	if !again {
		t.asked[name] = time.Now()
	}
	var cluster rbdutil.Cluster
	if p != nil {
		cluster = p.cluster
	}
	t.mu.Unlock()
	if p != nil {
		t.Clean(ctx, cluster, source.RBDPool)
	}
	if again && time.Since(asked) > trashRetry {
		t.Events.Eventf(volume, corev1.EventTypeWarning, reasonFinalizerKept,
			"the volume keeps its finalizer until the trash of pool %s has been searched for its image: check the cluster's health (`ceph -s`), and that the admin secret exists", source.RBDPool)
	}
	return fmt.Errorf("the trash of pool %s has not been searched for the image of volume %s yet", source.RBDPool, name)
}

// mayBeCancelled reports whether a deletion of the volume may have been begun and cancelled.
func mayBeCancelled(volume *corev1.PersistentVolume) bool {
	return volume.Spec.RBD != nil && volume.Status.Phase != corev1.VolumeBound &&
		volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete
}
