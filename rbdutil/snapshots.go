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
	// maxCloneSnapshots is how many snapshots of ours an image may have. Further clones are
	// flattened, or made from the last snapshot.
	maxCloneSnapshots = 256
	// maxMappableSnapshots is how many snapshots an image may have in total before another
	// one is created. The kernel client maps an image with up to 510 (RBD_MAX_SNAP_COUNT).
	maxMappableSnapshots = 480
)

// unchangedTimeout bounds the check whether a source was written to.
const unchangedTimeout = 5 * time.Second

// snapshotPrefix begins the name of each snapshot of ours. The name of the clone follows.
const snapshotPrefix = "rbd-provisioner-for-"

// snapshotFor returns the name of the source's snapshot for a clone.
func snapshotFor(clone ImageRef) string { return snapshotPrefix + clone.Name }

// CloneOf returns the name of the clone for which a snapshot was created, if it is ours.
func CloneOf(snapshot string) (image string, ours bool) {
	return strings.CutPrefix(snapshot, snapshotPrefix)
}

// ourSnapshots returns our snapshots of an image, in their order.
func ourSnapshots(img Image) []string {
	return slices.DeleteFunc(slices.Clone(img.Snapshots), func(name string) bool { return !isOurSnapshot(name) })
}

func isOurSnapshot(snapshot string) bool {
	_, ours := CloneOf(snapshot)
	return ours
}

// takeSnapshot creates the snapshot for the clone, and returns the snapshot to clone. If the
// source has too many snapshots and was not written to since the last one, it returns that
// one.
func (i *Images) takeSnapshot(ctx context.Context, c Cluster, spec ImageSpec, source Image) (string, error) {
	own := snapshotFor(spec.ImageRef)
	others := slices.DeleteFunc(ourSnapshots(source), func(name string) bool { return name == own })
	crowded := len(others) >= maxCloneSnapshots
	switch {
	case len(source.Snapshots) >= maxMappableSnapshots && !crowded:
		return "", fmt.Errorf("%w: %s has %d snapshots, and nodes cannot map an image with many more: remove those that are not needed (`rbd snap ls`, `rbd snap rm`)",
			ErrSourceIncompatible, source.ImageRef, len(source.Snapshots))
	case crowded && i.isUnchanged(ctx, c, source, others[len(others)-1]):
		return others[len(others)-1], nil
	case crowded && i.flattener.isFull():
		return "", errTooManyFlattens
	case spec.Source.Unmounted && slices.Contains(source.Snapshots, own):
		// An earlier attempt may have been interrupted before it checked for watchers.
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
		_ = i.store.RemoveSnapshot(ctx, c, SnapshotRef{source.Pool, source.ID, own}) // on failure, the next attempt removes it
		err = fmt.Errorf("%w: %w", ErrSourceIncompatible, inUseError(now))
	}
	return own, err
}

// isUnchanged reports whether the source was not written to since the snapshot.
func (i *Images) isUnchanged(ctx context.Context, c Cluster, source Image, snapshot string) bool {
	ctx, cancel := context.WithTimeout(ctx, unchangedTimeout)
	defer cancel()
	written, err := i.store.HasChanges(ctx, c, source.ImageRef, snapshot)
	return err == nil && !written
}

// removeUnusedSnapshot removes the snapshot for a clone that does not need it: the clone was
// flattened, or has another snapshot as its parent.
func (i *Images) removeUnusedSnapshot(ctx context.Context, c Cluster, img Image) error {
	own := snapshotFor(img.ImageRef)
	if img.Parent != nil && img.Parent.Name == own {
		return nil
	}
	source := img.Record.Source
	err := i.store.RemoveSnapshot(ctx, c, SnapshotRef{source.Pool, source.ImageID, own})
	if errors.Is(err, ErrHasClones) || errors.Is(err, ErrPoolNotFound) {
		return nil // an earlier attempt is in the trash; its removal removes the snapshot
	}
	return err
}
