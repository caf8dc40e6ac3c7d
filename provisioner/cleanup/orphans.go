package cleanup

import (
	"context"
	"errors"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// scanTimeout limits the check whether an image was written to. It takes long for a large
// image, and no caller waits for it.
const scanTimeout = 10 * time.Minute

// removeOrphans removes the candidates of a pool whose Grace had passed at that time. It
// returns the number of the others.
func (o *OrphanCollector) removeOrphans(ctx context.Context, pool poolAccess, names []string, now time.Time) (pending int) {
	failed := false
	for _, name := range names {
		state := o.images[pool.key()][name]
		switch {
		case state == nil || state.candidateSince.IsZero():
		case now.Sub(state.candidateSince) < o.Grace:
			pending++
		case !failed:
			failed = !o.removeOrphan(ctx, pool, name, state)
		}
	}
	return pending
}

// removeOrphan removes one image, or reports why it is kept. It returns false if the
// removal of other images of the pool would fail as well.
func (o *OrphanCollector) removeOrphan(ctx context.Context, pool poolAccess, name string, state *imageState) bool {
	uid, _ := rbdutil.ClaimUID(name)
	owner := o.Clusters.Maker()
	owner.ClaimUID, owner.VolumeName = uid, provisioner.VolumeName(uid)
	// The library may still provision the volume of a claim that is deleted.
	release, ok := o.Reserve(owner.VolumeName)
	if !ok {
		return true
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	needed, err := o.isNeeded(ctx, pool, name, uid)
	if err == nil && needed {
		return true
	}
	if err == nil {
		err = o.Images.RemoveOrphan(ctx, pool.cluster, pool.ref(name), owner)
	}
	return o.recordResult(ctx, pool, pool.ref(name), state, err)
}

// recordResult remembers and reports the result of the removal of one image.
func (o *OrphanCollector) recordResult(ctx context.Context, pool poolAccess, ref rbdutil.ImageRef, state *imageState, err error) bool {
	logger := klog.FromContext(ctx)
	switch {
	case err == nil:
		o.Trash.Clean(ctx, pool.cluster, pool.name)
		logger.Info("Removed empty orphaned image", "image", ref)
	case errors.Is(err, rbdutil.ErrForeignImage):
		state.foreign = true
		logger.V(4).Info("Skipped image of another cluster or provisioner", "image", ref, "err", err)
	case errors.Is(err, rbdutil.ErrNotEmpty):
		state.orphaned = true
		logger.Info("Orphaned image holds data, not removing", "image", ref, "err", err)
		o.Events.Eventf(pool.object, corev1.EventTypeWarning, reasonOrphan,
			"image %s has neither claim nor volume and is kept: %v; if its data is not needed, move it to the trash (`rbd trash mv %s`)", ref, err, ref)
	case endsPass(err), apierrors.ReasonForError(err) != metav1.StatusReasonUnknown, errors.As(err, new(*url.Error)):
		logger.Info("Failed to remove orphaned images, will retry", "image", ref, "err", err)
		return false
	default:
		logger.Info("Failed to remove orphaned image, will retry", "image", ref, "err", err)
	}
	return true
}

// isNeeded reports whether the API server has the volume or the claim of an image.
func (o *OrphanCollector) isNeeded(ctx context.Context, pool poolAccess, name, uid string) (bool, error) {
	volume := provisioner.VolumeName(uid)
	if exists, err := o.volumeExists(ctx, volume); err != nil || exists {
		return exists, err
	}
	img, err := o.Images.Get(ctx, pool.cluster, pool.ref(name))
	if errors.Is(err, rbdutil.ErrImageNotFound) {
		return false, nil // perhaps only the name is left
	}
	if err != nil {
		return false, err
	}
	owner := img.Owner()
	// Ceph copies the record into a clone. A record of another claim is that of the source.
	ofSource := owner.ClaimUID != "" && owner.ClaimUID != uid
	if owner.VolumeName != "" && owner.VolumeName != volume && !ofSource {
		if exists, err := o.volumeExists(ctx, owner.VolumeName); err != nil || exists {
			return exists, err
		}
	}
	if owner.ClaimName == "" || owner.ClaimUID != uid {
		return false, nil
	}
	claim, err := o.Live.PersistentVolumeClaims(owner.ClaimNamespace).Get(ctx, owner.ClaimName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil && string(claim.UID) == uid, err
}

func (o *OrphanCollector) volumeExists(ctx context.Context, name string) (bool, error) {
	_, err := o.Live.PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
