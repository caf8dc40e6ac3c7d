package provisioner

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Reclaimer finds and removes images that were left behind.
type Reclaimer interface {
	List(ctx context.Context, c rbdutil.Cluster, pool string) ([]string, error)
	Reclaim(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, owner rbdutil.Owner) error
	ReleaseOrphans(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, owner rbdutil.Owner, useless func(clone string) bool) error
}

// SweeperConfig is what a Sweeper needs beside the Provisioner.
type SweeperConfig struct {
	Images  Reclaimer
	Claims  corelisters.PersistentVolumeClaimLister
	Volumes corelisters.PersistentVolumeLister
	// Live asks the API server itself, where caches may lag behind.
	Live corev1client.PersistentVolumesGetter
	// Reserve keeps a volume from being provisioned until it is released, unless it is
	// being provisioned, or waits to be saved, right now.
	Reserve func(volume string) (release func(), ok bool)
	// Grace is how long an image must have been without claim and volume; 0 for ever.
	Grace time.Duration
	Clock clock.Clock
}

// Sweeper looks after what the end of a process has cut off. It empties the trash, and
// removes what a claim leaves behind that is deleted while its image is being made and
// the provisioner dies: the library forgets such claims with its process, and nobody
// else knows of the image. That image is removed only when it has been without claim
// and volume for a while, the API server itself confirms that there is no volume, and
// nothing was ever written to it.
type Sweeper struct {
	SweeperConfig
	p *Provisioner
	// suspects are the images without claim and volume, by when that was first seen.
	suspects map[suspect]time.Time
	// kept are images that are somebody else's or hold data. That does not change.
	kept sets.Set[suspect]
	// looked is when the snapshots of an image were looked at: what was before this
	// process may have left some behind, and seldom this process itself.
	looked map[suspect]time.Time
	// handedOut are the volumes of clones whose images are known to say so.
	handedOut sets.Set[string]
}

// suspect is an image in a pool.
type suspect struct {
	place
	image string
}

// pauses is how many times the grace it takes until all pools are looked at again, and
// defaultPause how long it takes at most.
const (
	pauses       = 10
	defaultPause = 10 * time.Minute
)

// scanTimeout bounds finding out whether an image was written to. Nobody waits for
// it, and a big image takes its time.
const scanTimeout = 10 * time.Minute

// NewSweeper returns a Sweeper for the images of p.
func NewSweeper(p *Provisioner, c SweeperConfig) *Sweeper {
	return &Sweeper{SweeperConfig: c, p: p, suspects: map[suspect]time.Time{}, kept: sets.New[suspect](), looked: map[suspect]time.Time{}, handedOut: sets.New[string]()}
}

// Run sweeps at once and then from time to time, until ctx is done. The caches must
// be filled by then.
func (s *Sweeper) Run(ctx context.Context) {
	for {
		pause := defaultPause
		if s.Grace > 0 {
			pause = min(pause, pauses*s.Grace)
		}
		if s.Sweep(ctx) > 0 {
			pause = s.Grace
		}
		select {
		case <-s.Clock.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// Sweep looks once at the images of all classes and returns how many of them have not
// been suspected for long enough.
func (s *Sweeper) Sweep(ctx context.Context) int {
	volumes, err := s.Volumes.List(labels.Everything())
	if err != nil {
		klog.FromContext(ctx).Error(err, "Not looking for what was left behind")
		return 0
	}
	s.handOut(ctx, volumes)
	pools := s.pools(ctx, volumes)
	for _, at := range pools {
		s.p.trash.Purge(ctx, at.cluster, at.name)
	}
	if s.Grace == 0 {
		return 0
	}
	known, leaving, err := s.knownClaims(volumes)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Not looking for images left behind")
		return 0
	}
	seen, unripe := map[suspect]time.Time{}, 0
	for _, at := range pools {
		names, err := s.list(ctx, at)
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Not looking for images left behind", "pool", at.name, "err", err)
			unripe += s.carryOver(at, seen)
			continue
		}
		s.releaseSnapshots(ctx, at, names, known, leaving)
		for _, id := range s.suspectsAmong(names, at, known) {
			since, again := s.suspects[id]
			if !again {
				since = s.Clock.Now()
			}
			seen[id] = since
			if s.Clock.Since(since) < s.Grace {
				unripe++
				continue
			}
			if !s.reclaim(ctx, at.cluster, id) {
				break
			}
		}
	}
	s.suspects = seen
	return unripe
}

// carryOver keeps the suspicions of a pool that cannot be looked into now.
func (s *Sweeper) carryOver(at pool, seen map[suspect]time.Time) int {
	n := 0
	for id, since := range s.suspects {
		if id.place == placeOf(at.cluster, at.name) {
			seen[id] = since
			n++
		}
	}
	return n
}

// knownClaims are the UIDs of the claims that are there, and of those whose volume
// is; leaving are those of them whose claim is not. A volume's name tells the claim that
// it was made for.
func (s *Sweeper) knownClaims(volumes []*corev1.PersistentVolume) (known, leaving sets.Set[string], err error) {
	claims, err := s.Claims.List(labels.Everything())
	if err != nil {
		return nil, nil, err
	}
	there := sets.New[string]()
	for _, claim := range claims {
		there.Insert(string(claim.UID))
	}
	known = there.Clone()
	for _, volume := range volumes {
		known.Insert(strings.TrimPrefix(volume.Name, volumePrefix))
		if source := volume.Spec.RBD; source != nil {
			known.Insert(strings.TrimPrefix(source.RBDImage, imagePrefix))
		}
	}
	return known, known.Difference(there), nil
}

// pool is one in which there may be images of ours, and how to get there.
type pool struct {
	cluster rbdutil.Cluster
	name    string
}

// pools are those of our classes and of our volumes. A class or volume that does not
// say how to get there says so elsewhere; here it is passed over.
func (s *Sweeper) pools(ctx context.Context, volumes []*corev1.PersistentVolume) []pool {
	var pools []pool
	seen := sets.New[place]()
	add := func(monitors []string, name string, who func() (admin, error)) {
		cluster := rbdutil.Cluster{Monitors: monitors}
		if seen.Has(placeOf(cluster, name)) {
			return
		}
		user, err := who()
		if err != nil {
			return
		}
		key, err := s.p.adminKey(ctx, user.secret)
		if err != nil {
			return
		}
		seen.Insert(placeOf(cluster, name))
		cluster.User, cluster.Key = user.id, key
		pools = append(pools, pool{cluster, name})
	}
	classes, err := s.p.classes.List(labels.Everything())
	if err != nil {
		klog.FromContext(ctx).Error(err, "Not looking into the pools of classes")
	}
	for _, class := range classes {
		if params, errs := parseParameters(class.Parameters); class.Provisioner == s.p.name && len(errs) == 0 {
			add(params.monitors, params.pool, func() (admin, error) { return admin{params.adminID, params.adminSecret}, nil })
		}
	}
	for _, volume := range volumes {
		if source := volume.Spec.RBD; source != nil && volume.Annotations[annProvisionedBy] == s.p.name {
			add(source.CephMonitors, source.RBDPool, func() (admin, error) { return s.p.adminFor(volume) })
		}
	}
	return pools
}

func (s *Sweeper) list(ctx context.Context, at pool) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.p.timeout)
	defer cancel()
	return s.Images.List(ctx, at.cluster, at.name)
}

// suspectsAmong are the images of a pool that have neither claim nor volume.
func (s *Sweeper) suspectsAmong(names []string, at pool, known sets.Set[string]) []suspect {
	var suspects []suspect
	for _, name := range names {
		uid, prefixed := strings.CutPrefix(name, imagePrefix)
		id := suspect{placeOf(at.cluster, at.name), name}
		if prefixed && !known.Has(uid) && !s.kept.Has(id) {
			suspects = append(suspects, id)
		}
	}
	here := sets.New(names...)
	gone := func(id suspect) bool { return id.place == placeOf(at.cluster, at.name) && !here.Has(id.image) }
	maps.DeleteFunc(s.kept, func(id suspect, _ sets.Empty) bool { return gone(id) })
	maps.DeleteFunc(s.looked, func(id suspect, _ time.Time) bool { return gone(id) })
	return suspects
}

// lookAgain is when it is looked at the snapshots of an image again.
const lookAgain = time.Hour

// releaseSnapshots looks, once an hour, at the snapshots of each image
// that were taken for clones: those whose claim is gone, and which became no clone, are
// of no use. Where the volume of a clone is about to go, it looks again.
func (s *Sweeper) releaseSnapshots(ctx context.Context, at pool, names []string, known, leaving sets.Set[string]) {
	again := false
	useless := func(clone string) bool {
		uid, prefixed := strings.CutPrefix(clone, imagePrefix)
		again = again || leaving.Has(uid)
		if !prefixed || known.Has(uid) {
			return false
		}
		release, ok := s.Reserve(volumePrefix + uid)
		if ok {
			release()
		}
		return ok
	}
	for _, name := range names {
		id := suspect{placeOf(at.cluster, at.name), name}
		if !strings.HasPrefix(name, imagePrefix) || s.lookedLately(id) || ctx.Err() != nil {
			continue
		}
		again = false
		ref, owner := rbdutil.ImageRef{Pool: at.name, Name: name}, rbdutil.Owner{Provisioner: s.p.name, ClusterID: s.p.clusterID}
		if err := s.releaseOrphans(ctx, at, ref, owner, useless); err != nil {
			klog.FromContext(ctx).V(2).Info("Snapshots may be left behind", "image", ref, "err", err)
			if errors.Is(err, rbdutil.ErrNotAsked) || errors.Is(err, rbdutil.ErrTimeout) {
				return // as it would go with all others
			}
			continue
		}
		if !again {
			s.looked[id] = s.Clock.Now()
		}
	}
}

func (s *Sweeper) lookedLately(id suspect) bool {
	at, looked := s.looked[id]
	return looked && s.Clock.Since(at) < lookAgain
}

// handOut sees to it that the images of clones say that they are volumes, where the
// process has died that has saved the volume.
func (s *Sweeper) handOut(ctx context.Context, volumes []*corev1.PersistentVolume) {
	there := sets.New[string]()
	for _, volume := range volumes {
		there.Insert(volume.Name)
		if !IsClone(volume) || volume.Annotations[annProvisionedBy] != s.p.name || s.handedOut.Has(volume.Name) || ctx.Err() != nil {
			continue
		}
		if err := s.p.HandOut(ctx, volume); err != nil {
			klog.FromContext(ctx).V(2).Info("The image of a clone does not say yet that it is a volume", "volume", volume.Name, "err", err)
			continue
		}
		s.handedOut.Insert(volume.Name)
	}
	s.handedOut = s.handedOut.Intersection(there)
}

func (s *Sweeper) releaseOrphans(ctx context.Context, at pool, ref rbdutil.ImageRef, owner rbdutil.Owner, useless func(string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.p.timeout)
	defer cancel()
	return s.Images.ReleaseOrphans(ctx, at.cluster, ref, owner, useless)
}

// reclaim removes one image, or says why it stays. It tells whether there is any use
// in going on with the others of its pool.
func (s *Sweeper) reclaim(ctx context.Context, c rbdutil.Cluster, id suspect) (goOn bool) {
	ref, uid := rbdutil.ImageRef{Pool: id.pool, Name: id.image}, strings.TrimPrefix(id.image, imagePrefix)
	logger := klog.FromContext(ctx)
	// The library may still be busy with a claim that is gone, as it was begun.
	release, ok := s.Reserve(volumePrefix + uid)
	if !ok {
		return true
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	if _, err := s.Live.PersistentVolumes().Get(ctx, volumePrefix+uid, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return err == nil
	}
	err := s.Images.Reclaim(ctx, c, ref, rbdutil.Owner{
		ClaimUID: uid, VolumeName: volumePrefix + uid, Provisioner: s.p.name, ClusterID: s.p.clusterID,
	})
	switch {
	case err == nil:
		s.p.trash.Purge(ctx, c, id.pool)
		logger.Info("Removed an empty image that no claim and no volume has", "image", ref)
	case errors.Is(err, rbdutil.ErrNotOurs):
		s.kept.Insert(id)
		logger.V(4).Info("Image is not of this cluster and provisioner", "image", ref, "err", err)
	case errors.Is(err, rbdutil.ErrHoldsData):
		s.kept.Insert(id)
		logger.Info("Image has no claim and no volume, but data, and stays", "image", ref)
	case errors.Is(err, rbdutil.ErrInProgress):
		logger.V(4).Info("Image has no claim and no volume, but something is being done with it", "image", ref)
	case errors.Is(err, rbdutil.ErrImageInUse), errors.Is(err, rbdutil.ErrHasSnapshots), errors.Is(err, rbdutil.ErrInGroup):
		logger.Info("Image has no claim and no volume, but somebody holds it", "image", ref, "err", err)
	default:
		logger.Info("Not looking any further for images left behind", "image", ref, "err", err)
		return false
	}
	return true
}
