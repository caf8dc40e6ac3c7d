package cleanup

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// OrphanImages finds and removes images that interrupted operations have left.
type OrphanImages interface {
	List(ctx context.Context, c rbdutil.Cluster, pool string) ([]string, error)
	Get(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) (rbdutil.Image, error)
	RemoveOrphan(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, owner rbdutil.Owner) error
	RemoveOrphanSnapshots(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, owner rbdutil.Owner, reserve func(clone string) (release func(), ok bool)) error
}

// OrphanCollectorConfig configures an OrphanCollector.
type OrphanCollectorConfig struct {
	Clusters provisioner.Clusters
	// Timeout limits a request to Ceph.
	Timeout time.Duration
	Images  OrphanImages
	// Trash is cleaned in each pool.
	Trash   provisioner.Trash
	Claims  corelisters.PersistentVolumeClaimLister
	Volumes corelisters.PersistentVolumeLister
	Live    provisioner.LiveVolumesAndClaims
	Events  record.EventRecorder
	// Reserve keeps a volume from being provisioned until release is called. It returns
	// false if the volume is being provisioned, or is not saved yet.
	Reserve func(volume string) (release func(), ok bool)
	// Grace is how long an image must have neither claim nor volume before it is removed. 0
	// disables the removal of images and snapshots.
	Grace time.Duration
	Clock clock.Clock
	// OrphansChanged, if set, is called after each collection with the number of images that
	// hold data and have neither claim nor volume.
	OrphansChanged func(n int)
}

// OrphanCollector removes what is left if the process ends during an operation. It starts
// the trash cleaner in each pool. It removes the image of a claim that was deleted while
// its image was being created: the library does not remember such claims. Such an image is
// removed only under these conditions:
//   - It had neither claim nor volume for the time of Grace.
//   - The API server confirms that there is neither.
//   - Nothing was ever written to it.
//
// An image that holds data is kept and reported.
type OrphanCollector struct {
	OrphanCollectorConfig
	images map[poolKey]map[string]*imageState
}

// imageState is what the collector remembers of an image between collections.
type imageState struct {
	// candidateSince is when the image was first found without claim and volume; zero if it
	// is not a candidate for removal.
	candidateSince time.Time
	// foreign images have another owner; orphaned images hold data. Neither changes as long
	// as the image keeps its name and gets no claim.
	foreign, orphaned bool
	// snapshotsScanned is when the snapshots of the image were last scanned.
	snapshotsScanned time.Time
}

// The interval between collections is intervalFactor times Grace, but at most maxInterval.
const (
	intervalFactor = 10
	maxInterval    = 10 * time.Minute
)

// NewOrphanCollector returns an OrphanCollector.
func NewOrphanCollector(c OrphanCollectorConfig) *OrphanCollector {
	return &OrphanCollector{OrphanCollectorConfig: c, images: map[poolKey]map[string]*imageState{}}
}

// Run collects at once and then periodically, until ctx is done. The caches must be
// synced before.
func (o *OrphanCollector) Run(ctx context.Context) {
	for {
		interval := maxInterval
		if o.Grace > 0 {
			interval = min(interval, intervalFactor*o.Grace)
		}
		if o.Collect(ctx) > 0 {
			interval = o.Grace
		}
		select {
		case <-o.Clock.After(interval):
		case <-ctx.Done():
			return
		}
	}
}

// Collect goes once through the images of all pools. It returns the number of candidates
// whose Grace has not passed.
func (o *OrphanCollector) Collect(ctx context.Context) (pending int) {
	volumes, err := o.Volumes.List(labels.Everything())
	if err != nil {
		klog.FromContext(ctx).Error(err, "Failed to list PersistentVolumes, skipping garbage collection")
		return 0
	}
	pools := o.pools(ctx, volumes)
	for _, pool := range pools {
		o.Trash.Clean(ctx, pool.cluster, pool.name)
	}
	if o.Grace == 0 {
		return 0
	}
	known, leaving, err := o.knownClaims(volumes)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Failed to list PersistentVolumeClaims, skipping garbage collection")
		return 0
	}
	visited := sets.New[poolKey]()
	for _, pool := range pools {
		visited.Insert(pool.key())
		// The Grace is compared with this time, because the scan of snapshots can take longer than
		// the Grace. A candidate is never removed in the collection that finds it.
		now := o.Clock.Now()
		names, err := o.list(ctx, pool)
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Failed to list images, skipping garbage collection", "pool", pool.name, "err", err)
			pending += o.countCandidates(pool.key())
			continue
		}
		o.updateStates(pool.key(), names, known, now)
		o.scanSnapshots(ctx, pool, names, known, leaving)
		pending += o.removeOrphans(ctx, pool, names, now)
	}
	o.resetUnvisited(visited)
	if o.OrphansChanged != nil {
		o.OrphansChanged(o.countOrphans())
	}
	return pending
}

func (o *OrphanCollector) list(ctx context.Context, pool poolAccess) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	return o.Images.List(ctx, pool.cluster, pool.name)
}

// updateStates compares what is remembered of the images of a pool with their names and
// with the claims.
func (o *OrphanCollector) updateStates(pool poolKey, names []string, known sets.Set[string], now time.Time) {
	before, after := o.images[pool], map[string]*imageState{}
	for _, name := range names {
		state := before[name]
		if state == nil {
			state = &imageState{}
		}
		uid, ok := rbdutil.ClaimUID(name)
		switch {
		case !ok || known.Has(uid):
			*state = imageState{snapshotsScanned: state.snapshotsScanned}
		case state.foreign || state.orphaned:
			state.candidateSince = time.Time{}
		case state.candidateSince.IsZero():
			state.candidateSince = now
		}
		if *state != (imageState{}) || rbdutil.HasImagePrefix(name) {
			after[name] = state
		}
	}
	o.images[pool] = after
}

// resetUnvisited restarts the Grace of candidates in pools that no class or volume names
// any more.
func (o *OrphanCollector) resetUnvisited(visited sets.Set[poolKey]) {
	for key, states := range o.images {
		for _, state := range states {
			if !visited.Has(key) {
				state.candidateSince = time.Time{}
			}
		}
	}
}

func (o *OrphanCollector) countCandidates(pool poolKey) (n int) {
	for _, state := range o.images[pool] {
		if !state.candidateSince.IsZero() {
			n++
		}
	}
	return n
}

func (o *OrphanCollector) countOrphans() (n int) {
	for _, states := range o.images {
		for _, state := range states {
			if state.orphaned {
				n++
			}
		}
	}
	return n
}

// knownClaims returns the UIDs of the claims that exist or whose volume exists. Those in
// leaving have a volume, but no claim any more. The name of a volume contains the UID.
func (o *OrphanCollector) knownClaims(volumes []*corev1.PersistentVolume) (known, leaving sets.Set[string], err error) {
	claims, err := o.Claims.List(labels.Everything())
	if err != nil {
		return nil, nil, err
	}
	existing := sets.New[string]()
	for _, claim := range claims {
		existing.Insert(string(claim.UID))
	}
	known = existing.Clone()
	for _, volume := range volumes {
		known.Insert(strings.TrimPrefix(volume.Name, provisioner.VolumeName("")))
		for _, ref := range pvindex.Images(volume) {
			if uid, ok := rbdutil.ClaimUID(ref.Name); ok {
				known.Insert(uid)
			}
		}
	}
	return known, known.Difference(existing), nil
}
