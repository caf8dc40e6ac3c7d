package provisioner

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// OrphanStore finds and removes images that were left behind.
type OrphanStore interface {
	List(ctx context.Context, c rbdutil.Cluster, pool string) ([]string, error)
	Get(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) (rbdutil.Image, error)
	RemoveOrphan(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, owner rbdutil.Owner) error
	RemoveOrphanSnapshots(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, owner rbdutil.Owner, reserve func(clone string) (release func(), ok bool)) error
}

// LiveVolumesAndClaims asks the API server itself, where caches may lag behind.
type LiveVolumesAndClaims interface {
	corev1client.PersistentVolumesGetter
	corev1client.PersistentVolumeClaimsGetter
}

// SweeperConfig is what a Sweeper needs beside the Provisioner.
type SweeperConfig struct {
	Images  OrphanStore
	Claims  corelisters.PersistentVolumeClaimLister
	Volumes corelisters.PersistentVolumeLister
	Live    LiveVolumesAndClaims
	// Reserve keeps a volume from being provisioned until it is released, unless it is
	// being provisioned, or waits to be saved, right now.
	Reserve func(volume string) (release func(), ok bool)
	// Grace is how long an image must have been without claim and volume; 0 for ever.
	Grace time.Duration
	Clock clock.Clock
	// OrphansChanged, if set, is called after each sweep with the number of images that
	// hold data and have neither claim nor volume.
	OrphansChanged func(n int)
}

// Sweeper completes what the end of a process has interrupted. It has the trash cleaned,
// and removes what a claim leaves behind that is deleted while its image is being made and
// the provisioner dies: the library forgets such claims with its process, and nothing else
// knows of the image. That image is removed only when it has been without claim and volume
// for a while, the API server itself confirms that there is neither, and nothing was ever
// written to it. An image that holds data stays, and is reported.
type Sweeper struct {
	SweeperConfig
	p *Provisioner
	// suspects are the images without claim and volume, by when that was first seen.
	suspects map[suspect]time.Time
	// foreign are images of another owner, orphans those that hold data. That does not
	// change while they keep their names.
	foreign, orphans sets.Set[suspect]
	// looked is when the snapshots of an image were looked at: what was before this
	// process may have left some behind, and seldom this process itself.
	looked map[suspect]time.Time
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
	return &Sweeper{
		SweeperConfig: c, p: p, suspects: map[suspect]time.Time{}, looked: map[suspect]time.Time{},
		foreign: sets.New[suspect](), orphans: sets.New[suspect](),
	}
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
		klog.FromContext(ctx).Error(err, "Failed to list PersistentVolumes, skipping garbage collection")
		return 0
	}
	pools := s.pools(ctx, volumes)
	for _, at := range pools {
		s.p.trash.Clean(ctx, at.cluster, at.name)
	}
	if s.Grace == 0 {
		return 0
	}
	known, leaving, err := s.knownClaims(volumes)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Failed to list PersistentVolumeClaims, skipping garbage collection")
		return 0
	}
	seen, unripe := map[suspect]time.Time{}, 0
	for _, at := range pools {
		names, err := s.list(ctx, at)
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Failed to list images, skipping garbage collection", "pool", at.name, "err", err)
			unripe += s.carryOver(at, seen)
			continue
		}
		s.releaseSnapshots(ctx, at, names, known, leaving)
		unripe += s.reclaimAll(ctx, at, s.suspectsAmong(names, at, known), seen)
	}
	s.suspects = seen
	if s.OrphansChanged != nil {
		s.OrphansChanged(s.orphans.Len())
	}
	return unripe
}

// reclaimAll removes the suspects of a pool that have been seen for long enough. It notes
// in seen since when each is suspected, and returns how many are to be looked at soon.
func (s *Sweeper) reclaimAll(ctx context.Context, at pool, suspects []suspect, seen map[suspect]time.Time) int {
	unripe, goOn := 0, true
	for _, id := range suspects {
		since, again := s.suspects[id]
		if !again {
			since = s.Clock.Now()
		}
		seen[id] = since
		if s.Clock.Since(since) < s.Grace {
			unripe++
		} else if goOn {
			goOn = s.reclaim(ctx, at, id)
		}
	}
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
		for _, ref := range imagesOf(volume) {
			if uid, ok := rbdutil.ClaimUID(ref.Name); ok {
				known.Insert(uid)
			}
		}
	}
	return known, known.Difference(there), nil
}

// pool is one in which there may be images of ours, and how to get there.
type pool struct {
	cluster rbdutil.Cluster
	name    string
	// from is the class or volume that names it.
	from runtime.Object
}

// pools are those of our classes and of our volumes. A class or volume that does not
// say how to get there says so elsewhere; here it is passed over.
func (s *Sweeper) pools(ctx context.Context, volumes []*corev1.PersistentVolume) []pool {
	var pools []pool
	seen := sets.New[place]()
	add := func(from runtime.Object, monitors []string, name string, who func() (admin, error)) {
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
		pools = append(pools, pool{cluster, name, from})
	}
	classes, err := s.p.classes.List(labels.Everything())
	if err != nil {
		klog.FromContext(ctx).Error(err, "Failed to list StorageClasses")
	}
	for _, class := range classes {
		if params, errs := parseParameters(class.Parameters); class.Provisioner == s.p.name && len(errs) == 0 {
			add(class, params.monitors, params.pool, func() (admin, error) { return admin{params.adminID, params.adminSecret}, nil })
		}
	}
	for _, volume := range volumes {
		if source := volume.Spec.RBD; source != nil && volume.Annotations[annProvisionedBy] == s.p.name {
			add(volume, source.CephMonitors, source.RBDPool, func() (admin, error) { return s.p.adminFor(volume) })
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
	here := sets.New[suspect]()
	for _, name := range names {
		id := suspect{placeOf(at.cluster, at.name), name}
		uid, ok := rbdutil.ClaimUID(name)
		if !ok || known.Has(uid) {
			s.orphans.Delete(id)
			continue
		}
		here.Insert(id)
		if !s.foreign.Has(id) && !s.orphans.Has(id) {
			suspects = append(suspects, id)
		}
	}
	all := sets.New(names...)
	gone := func(id suspect) bool { return id.place == placeOf(at.cluster, at.name) && !here.Has(id) }
	maps.DeleteFunc(s.foreign, func(id suspect, _ sets.Empty) bool { return gone(id) })
	maps.DeleteFunc(s.orphans, func(id suspect, _ sets.Empty) bool { return gone(id) })
	maps.DeleteFunc(s.looked, func(id suspect, _ time.Time) bool {
		return id.place == placeOf(at.cluster, at.name) && !all.Has(id.image)
	})
	return suspects
}

// lookAgain is when it is looked at the snapshots of an image again.
const lookAgain = time.Hour

// releaseSnapshots looks, once an hour, at the snapshots of each image that were taken for
// clones: those whose claim is gone, and which became no clone, are of no use. Where the
// volume of a clone is about to be deleted, it looks again.
func (s *Sweeper) releaseSnapshots(ctx context.Context, at pool, names []string, known, leaving sets.Set[string]) {
	again := false
	reserve := func(clone string) (release func(), ok bool) {
		uid, ok := rbdutil.ClaimUID(clone)
		again = again || leaving.Has(uid)
		if !ok || known.Has(uid) {
			return nil, false
		}
		release, ok = s.Reserve(volumePrefix + uid)
		if !ok {
			return nil, false
		}
		if exists, err := s.volumeExists(ctx, volumePrefix+uid); err != nil || exists {
			release()
			return nil, false
		}
		return release, true
	}
	for _, name := range names {
		id := suspect{placeOf(at.cluster, at.name), name}
		if !rbdutil.HasImagePrefix(name) || s.lookedLately(id) || ctx.Err() != nil {
			continue
		}
		again = false
		ref, owner := rbdutil.ImageRef{Pool: at.name, Name: name}, rbdutil.Owner{Provisioner: s.p.name, ClusterID: s.p.clusterID}
		if err := s.removeOrphanSnapshots(ctx, at, ref, owner, reserve); err != nil {
			klog.FromContext(ctx).V(2).Info("Failed to remove unused snapshots", "image", ref, "err", err)
			if endsPass(err) {
				return
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

func (s *Sweeper) removeOrphanSnapshots(ctx context.Context, at pool, ref rbdutil.ImageRef, owner rbdutil.Owner, reserve func(string) (func(), bool)) error {
	ctx, cancel := context.WithTimeout(ctx, s.p.timeout)
	defer cancel()
	return s.Images.RemoveOrphanSnapshots(ctx, at.cluster, ref, owner, reserve)
}

// reclaim removes one image, or says why it stays. It reports whether there is any use
// in going on with the others of its pool.
func (s *Sweeper) reclaim(ctx context.Context, at pool, id suspect) (goOn bool) {
	ref := rbdutil.ImageRef{Pool: id.pool, Name: id.image}
	uid, _ := rbdutil.ClaimUID(id.image)
	// The library may still be busy with a claim that is gone, as it was begun.
	release, ok := s.Reserve(volumePrefix + uid)
	if !ok {
		return true
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	needed, err := s.isNeeded(ctx, at.cluster, ref, uid)
	if err == nil && needed {
		return true
	}
	if err == nil {
		err = s.Images.RemoveOrphan(ctx, at.cluster, ref, rbdutil.Owner{
			ClaimUID: uid, VolumeName: volumePrefix + uid, Provisioner: s.p.name, ClusterID: s.p.clusterID,
		})
	}
	return s.reclaimed(ctx, at, id, err)
}

// reclaimed notes and reports what came of the removal of one image.
func (s *Sweeper) reclaimed(ctx context.Context, at pool, id suspect, err error) (goOn bool) {
	logger, ref := klog.FromContext(ctx), rbdutil.ImageRef{Pool: id.pool, Name: id.image}
	switch {
	case err == nil:
		s.p.trash.Clean(ctx, at.cluster, id.pool)
		logger.Info("Removed an empty image without claim and volume", "image", ref)
	case errors.Is(err, rbdutil.ErrForeignImage):
		s.foreign.Insert(id)
		logger.V(4).Info("Image is not of this cluster and provisioner", "image", ref, "err", err)
	case errors.Is(err, rbdutil.ErrNotEmpty):
		s.orphans.Insert(id)
		logger.Info("Orphaned image holds data, not removing", "image", ref, "err", err)
		s.p.events.Eventf(at.from, corev1.EventTypeWarning, reasonOrphan,
			"image %s has neither claim nor volume, and is kept: %v; if its data is not needed: `rbd trash mv %s`", ref, err, ref)
	case endsPass(err), apierrors.ReasonForError(err) != metav1.StatusReasonUnknown, errors.As(err, new(*url.Error)):
		logger.Info("Failed to remove images without claim and volume, will retry", "image", ref, "err", err)
		return false
	default:
		logger.Info("Orphaned image cannot be removed now, will retry", "image", ref, "err", err)
	}
	return true
}

// isNeeded asks the API server whether the volume or the claim of an image exists.
func (s *Sweeper) isNeeded(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, uid string) (bool, error) {
	if exists, err := s.volumeExists(ctx, volumePrefix+uid); err != nil || exists {
		return exists, err
	}
	img, err := s.Images.Get(ctx, c, ref)
	if errors.Is(err, rbdutil.ErrImageNotFound) {
		return false, nil // only its name is left, perhaps
	}
	if err != nil {
		return false, err
	}
	owner := img.Owner()
	// The record of another claim is that of the source: the image is the beginning of a clone.
	ofSource := owner.ClaimUID != "" && owner.ClaimUID != uid
	if name := owner.VolumeName; name != "" && name != volumePrefix+uid && !ofSource {
		if exists, err := s.volumeExists(ctx, name); err != nil || exists {
			return exists, err
		}
	}
	if owner.ClaimName == "" || owner.ClaimUID != uid {
		return false, nil
	}
	claim, err := s.Live.PersistentVolumeClaims(owner.ClaimNamespace).Get(ctx, owner.ClaimName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil && string(claim.UID) == uid, err
}

func (s *Sweeper) volumeExists(ctx context.Context, name string) (bool, error) {
	_, err := s.Live.PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
