package cleanup

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// snapshotScanInterval is the interval between scans of an image's snapshots. An earlier
// process may have left some; this process seldom leaves any.
const snapshotScanInterval = time.Hour

// scanSnapshots removes snapshots that were taken for clones and have no clone and no
// claim. It scans each image once per interval. It scans an image again earlier if the
// volume of one of its clones is about to be deleted.
func (o *OrphanCollector) scanSnapshots(ctx context.Context, pool poolAccess, names []string, known, leaving sets.Set[string]) {
	scanAgain := false
	reserve := func(clone string) (release func(), ok bool) {
		uid, ok := rbdutil.ClaimUID(clone)
		scanAgain = scanAgain || leaving.Has(uid)
		if !ok || known.Has(uid) {
			return nil, false
		}
		return o.reserveUnused(ctx, provisioner.VolumeName(uid))
	}
	for _, name := range names {
		state := o.images[pool.key()][name]
		if !rbdutil.HasImagePrefix(name) || ctx.Err() != nil || o.scannedRecently(state) {
			continue
		}
		scanAgain = false
		if err := o.removeOrphanSnapshots(ctx, pool, name, reserve); err != nil {
			klog.FromContext(ctx).Info("Failed to remove unused snapshots, will retry", "image", pool.ref(name), "err", err)
			if endsPass(err) {
				return
			}
			continue
		}
		if !scanAgain {
			state.snapshotsScanned = o.Clock.Now()
		}
	}
}

// reserveUnused reserves the name of a volume if the API server does not have the volume.
func (o *OrphanCollector) reserveUnused(ctx context.Context, volume string) (release func(), ok bool) {
	release, ok = o.Reserve(volume)
	if !ok {
		return nil, false
	}
	if exists, err := o.volumeExists(ctx, volume); err != nil || exists {
		release()
		return nil, false
	}
	return release, true
}

func (o *OrphanCollector) scannedRecently(state *imageState) bool {
	return !state.snapshotsScanned.IsZero() && o.Clock.Since(state.snapshotsScanned) < snapshotScanInterval
}

func (o *OrphanCollector) removeOrphanSnapshots(ctx context.Context, pool poolAccess, name string, reserve func(string) (func(), bool)) error {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	return o.Images.RemoveOrphanSnapshots(ctx, pool.cluster, pool.ref(name), o.Clusters.Maker(), reserve)
}
