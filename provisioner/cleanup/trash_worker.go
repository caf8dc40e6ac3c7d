package cleanup

import (
	"context"
	"errors"
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// work is a worker of a pool.
func (t *TrashCleaner) work(ctx context.Context, key poolKey, c rbdutil.Cluster) {
	logger := klog.FromContext(ctx)
	for {
		removed, err := t.pass(ctx, key, c)
		if removed > 0 {
			logger.V(2).Info("Removed deleted images from the trash", "pool", key.name, "images", removed)
			continue // one of them may have been the last clone of another image
		}
		if err != nil {
			// A retry with a wrong key or pool fails again. The next collection has the new ones.
			permanent := errors.Is(err, rbdutil.ErrAccessDenied) || errors.Is(err, rbdutil.ErrPoolNotFound)
			if permanent || t.scheduleRetry(ctx, key, c) {
				logger.Info("Failed to remove deleted images from the trash, will retry", "pool", key.name, "err", err)
			}
		}
		if !t.more(key) {
			return
		}
	}
}

// scheduleRetry schedules one retry for all workers. It returns false if one was
// scheduled already.
func (t *TrashCleaner) scheduleRetry(ctx context.Context, key poolKey, c rbdutil.Cluster) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[key]
	if p.retry {
		return false
	}
	p.retry = true
	time.AfterFunc(trashRetry, func() {
		t.mu.Lock()
		p.retry = false
		t.mu.Unlock()
		t.Clean(ctx, c, key.name)
	})
	return true
}

// more reports whether the worker has to start another pass. Otherwise the worker ends.
func (t *TrashCleaner) more(key poolKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[key]
	if p.again {
		p.again = false
		return true
	}
	p.workers--
	return false
}

// pass goes once through the trash of a pool. It returns the number of removed images, and
// the errors of the others.
func (t *TrashCleaner) pass(ctx context.Context, key poolKey, c rbdutil.Cluster) (int, error) {
	begun := time.Now()
	trashed, err := t.Images.ListTrash(ctx, c, key.name)
	if err != nil {
		return 0, err
	}
	t.forget(key, trashed)
	removed, unsettled := 0, sets.New[string]()
	var errs []error
	for _, img := range trashed {
		done, settled, err := t.cleanOnce(ctx, key, c, img)
		if !settled {
			unsettled.Insert(img.Name)
		}
		switch {
		case done:
			removed++
		case endsPass(err):
			return removed, err
		case err != nil:
			errs = append(errs, err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pools[key].searched, t.pools[key].unsettled = begun, unsettled
	return removed, errors.Join(errs...)
}

// endsPass reports whether all other images of the pool would fail with the same error.
func endsPass(err error) bool {
	return rbdutil.IsPoolUnavailable(err) || errors.Is(err, rbdutil.ErrAccessDenied) || errors.Is(err, rbdutil.ErrPoolNotFound)
}

// forget drops the state of images that left the trash, and old cancellations.
func (t *TrashCleaner) forget(key poolKey, trashed []rbdutil.TrashedImage) {
	there := sets.New[string]()
	for _, img := range trashed {
		there.Insert(img.ID)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pools[key].foreign = t.pools[key].foreign.Intersection(there)
	maps.DeleteFunc(t.asked, func(_ string, asked time.Time) bool { return time.Since(asked) > cancellationMemory })
	maps.DeleteFunc(t.cancelled, func(_ string, r cancellation) bool { return time.Since(r.seen) > cancellationMemory })
}

// cleanOnce cleans one image, unless another worker handles it. The image is settled if
// the result is known.
func (t *TrashCleaner) cleanOnce(ctx context.Context, key poolKey, c rbdutil.Cluster, img rbdutil.TrashedImage) (removed, settled bool, err error) {
	t.mu.Lock()
	p := t.pools[key]
	taken, foreign := p.busy.Has(img.ID), p.foreign.Has(img.ID)
	p.busy.Insert(img.ID)
	t.mu.Unlock()
	if taken {
		return false, false, nil
	}
	end, ok := t.Begin()
	if ok {
		removed, err = t.clean(ctx, c, key.name, img, foreign)
		end()
	}
	settled = ok && (err == nil || errors.Is(err, rbdutil.ErrForeignImage))
	t.mu.Lock()
	defer t.mu.Unlock()
	p.busy.Delete(img.ID)
	if errors.Is(err, rbdutil.ErrForeignImage) {
		p.foreign.Insert(img.ID)
		err = nil
	}
	if errors.Is(err, rbdutil.ErrNotEmpty) {
		klog.FromContext(ctx).Info("Image in the trash was never used, but holds data, not removing", "pool", key.name, "image", img.Name, "id", img.ID)
		p.foreign.Insert(img.ID)
		err = nil
	}
	// An image with clones is removed after the last of them.
	if errors.Is(err, rbdutil.ErrImageNotFound) || errors.Is(err, rbdutil.ErrHasClones) {
		err = nil
	}
	return removed, settled, err
}
