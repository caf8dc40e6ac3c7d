package provisioner

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Watch cleans when a volume whose deletion was begun is gone, and when it is not to be
// deleted any more.
func (t *TrashCleaner) Watch(ctx context.Context, volumes cache.SharedInformer) error {
	_, err := volumes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, obj any) {
			if volume, ok := obj.(*corev1.PersistentVolume); ok && !isDeletable(volume) {
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

// settle is for a volume that is gone, or is not to be deleted any more.
func (t *TrashCleaner) settle(ctx context.Context, volume *corev1.PersistentVolume) {
	t.mu.Lock()
	at, ok := t.pending[volume.Name]
	delete(t.pending, volume.Name)
	rescued := ok && !isDeletable(volume)
	if rescued {
		t.rescued[volume.Name] = rescue{volume, time.Now()}
	}
	t.mu.Unlock()
	if ok {
		t.Clean(ctx, at.cluster, at.name)
	}
	if rescued { // its move may be completed only now
		time.AfterFunc(trashRetry, func() { t.Clean(ctx, at.cluster, at.name) })
	}
}

// wasRescued returns the volume if it was to be deleted, and then was not.
func (t *TrashCleaner) wasRescued(volume string) *corev1.PersistentVolume {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rescued[volume].volume
}

// MayRelease returns an error while the image of a volume may be in the trash, though the
// volume is not to be deleted any more: its policy was changed after its deletion was begun,
// perhaps by an earlier leader. Until the trash was searched, the finalizer must stay on the
// volume, or nothing would show that its image is needed.
func (t *TrashCleaner) MayRelease(ctx context.Context, name string) error {
	object, exists, err := t.Index.GetByKey(name)
	if err != nil || !exists {
		return err
	}
	volume, ok := object.(*corev1.PersistentVolume)
	if !ok || !mayHaveBeenRescued(volume) {
		return nil
	}
	source := volume.Spec.RBD
	t.mu.Lock()
	p := t.pools[placeOf(rbdutil.Cluster{Monitors: source.CephMonitors}, source.RBDPool)]
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
		t.Events.Eventf(volume, corev1.EventTypeWarning, reasonNotReleased,
			"the volume keeps its finalizer until the trash of pool %s could be searched for its image: check the cluster's health (`ceph -s`), and that the admin secret is there", source.RBDPool)
	}
	return fmt.Errorf("the trash of pool %s has not been searched for the image of volume %s yet", source.RBDPool, name)
}

// mayHaveBeenRescued reports whether a deletion of the volume may have been begun, though it is
// not to be deleted now.
func mayHaveBeenRescued(volume *corev1.PersistentVolume) bool {
	return volume.Spec.RBD != nil && volume.Status.Phase != corev1.VolumeBound &&
		volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete
}
