package rbdutil

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// maxCloneSnapshots is how many snapshots an image may have for its clones.
	maxCloneSnapshots = 256
	// maxMappableSnapshots is how many snapshots it may have altogether, before one more is taken. The
	// kernel's client cannot map an image with more than 510 (its RBD_MAX_SNAP_COUNT).
	maxMappableSnapshots = 480
)

// unchangedTimeout bounds finding out whether a source was written to.
const unchangedTimeout = 5 * time.Second

// snapshotPrefix begins the name of every snapshot that we take; that of the image for
// which it is taken follows.
const snapshotPrefix = "rbd-provisioner-for-"

// snapshotFor is the name of the snapshot of its source that is taken for a clone.
func snapshotFor(clone ImageRef) string { return snapshotPrefix + clone.Name }

// CloneOf returns the name of the image for which a snapshot was taken, if it was by us.
func CloneOf(snapshot string) (image string, ours bool) {
	return strings.CutPrefix(snapshot, snapshotPrefix)
}

// ourSnapshots are the snapshots of an image that we have taken, in their order.
func ourSnapshots(img Image) []string {
	return slices.DeleteFunc(slices.Clone(img.Snapshots), func(name string) bool { return !isOurSnapshot(name) })
}

func isOurSnapshot(snapshot string) bool {
	_, ours := CloneOf(snapshot)
	return ours
}

// snapshot takes the clone's snapshot of the source and returns the one to make the
// clone of, which is another if the source has many and was not written to since.
func (i *Images) takeSnapshot(ctx context.Context, c Cluster, spec ImageSpec, source Image) (string, error) {
	own := snapshotFor(spec.ImageRef)
	others := slices.DeleteFunc(ourSnapshots(source), func(name string) bool { return name == own })
	crowded := len(others) >= maxCloneSnapshots
	switch {
	case len(source.Snapshots) >= maxMappableSnapshots && !crowded:
		return "", fmt.Errorf("%w: %s has %d snapshots, and with many more no node could map it: remove those that are not needed (`rbd snap ls`, `rbd snap rm`)",
			ErrSourceIncompatible, source.ImageRef, len(source.Snapshots))
	case crowded && i.isUnchanged(ctx, c, source, others[len(others)-1]):
		return others[len(others)-1], nil
	case crowded && i.flattener.isFull():
		return "", errTooManyFlattens
	case spec.Source.Unmounted && slices.Contains(source.Snapshots, own):
		// An earlier attempt may not have come to the point of looking who has it mapped.
		if err := i.store.RemoveSnapshot(ctx, c, SnapshotRef{source.Pool, source.ID, own}); err != nil {
			return "", err
		}
	}
	if err := i.store.CreateSnapshot(ctx, c, source.ImageRef, own); err != nil {
		return "", err
	}
	if !spec.Source.Unmounted {
		return own, nil
	}
	now, err := i.store.Get(ctx, c, source.ImageRef)
	if err == nil && len(now.Watchers) > 0 {
		_ = i.store.RemoveSnapshot(ctx, c, SnapshotRef{source.Pool, source.ID, own}) // the next attempt does it, too
		err = fmt.Errorf("%w: %w", ErrSourceIncompatible, inUseError(now))
	}
	return own, err
}

// unchanged reports whether a snapshot shows the source as it is now.
func (i *Images) isUnchanged(ctx context.Context, c Cluster, source Image, snapshot string) bool {
	ctx, cancel := context.WithTimeout(ctx, unchangedTimeout)
	defer cancel()
	written, err := i.store.HasChanges(ctx, c, source.ImageRef, snapshot)
	return err == nil && !written
}

// releaseUnused removes the snapshot that was taken for a clone which has no use for it: it
// was flattened, or is made of another snapshot.
func (i *Images) removeUnusedSnapshot(ctx context.Context, c Cluster, img Image) error {
	own := snapshotFor(img.ImageRef)
	if img.Parent != nil && img.Parent.Name == own {
		return nil
	}
	source := img.Record.Source
	err := i.store.RemoveSnapshot(ctx, c, SnapshotRef{source.Pool, source.ImageID, own})
	if errors.Is(err, ErrHasClones) || errors.Is(err, ErrPoolNotFound) {
		return nil // an earlier attempt is still in the trash, and takes it along
	}
	return err
}
