package rbdutil

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of clones, beyond which a clone is given all of its data at its birth, so that
// it needs its source no more.
const (
	// maxDepth is how many images a clone may get its data from, one behind the other.
	// The kernel's client takes 16 (its RBD_MAX_PARENT_CHAIN_LEN), and each costs time.
	maxDepth = 8
	// maxSnapshots is how many snapshots an image may have for its clones.
	maxSnapshots = 256
	// mappable is how many snapshots it may have altogether, before one more is taken. The
	// kernel's client cannot map an image with more than 510 (its RBD_MAX_SNAP_COUNT).
	mappable = 480
)

// unchangedPatience bounds finding out whether a source was written to.
const unchangedPatience = 5 * time.Second

// snapshotPrefix begins the name of every snapshot that we take; that of the image for
// which it is taken follows.
const snapshotPrefix = "rbd-provisioner-for-"

// snapshotFor is the name of the snapshot of its source that is taken for a clone.
func snapshotFor(clone ImageRef) string { return snapshotPrefix + clone.Name }

// CloneOf returns the name of the image for which a snapshot was taken, if it was by us.
func CloneOf(snapshot string) (image string, ours bool) {
	return strings.CutPrefix(snapshot, snapshotPrefix)
}

// oursOf are the snapshots of an image that we have taken, in their order.
func oursOf(img Image) []string {
	return slices.DeleteFunc(slices.Clone(img.Snapshots), func(name string) bool { return !ofOurs(name) })
}

func ofOurs(snapshot string) bool {
	_, ours := CloneOf(snapshot)
	return ours
}

// ensureClone is Ensure for an image that begins with the data of another.
//
// A clone is born in this order: a snapshot of the source that bears the clone's name
// and says, as long as the clone itself cannot, that we are making it; the clone; in its
// metadata the owner, by which the snapshot is known to have it for a clone; its size;
// where it must not depend on its source, the data; and last the name of its volume.
// Nothing without that was ever handed out.
func (i *Images) ensureClone(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	if i.copies.running(copyName(c, spec.ImageRef)) {
		return Image{}, fmt.Errorf("%w: %w", ErrUnfinished, errCopying)
	}
	img, err := i.store.Get(ctx, c, spec.ImageRef)
	switch {
	case errors.Is(err, ErrImageNotFound):
		img, err = i.beginClone(ctx, c, spec)
	case err == nil && !img.Owner().SameClaim(spec.Owner):
		img, err = i.beginCloneAnew(ctx, c, spec, img)
	case err == nil:
		if err = cloneFits(img, spec); err != nil && img.Owner().VolumeName != spec.Owner.VolumeName {
			img, err = i.replaceClone(ctx, c, spec)
		}
	}
	if err != nil {
		return Image{}, err
	}
	if err := i.finishClone(ctx, c, spec, &img); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	return img, nil
}

// beginClone makes a clone that is ours to complete.
func (i *Images) beginClone(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	source, err := i.sourceOf(ctx, c, spec)
	if err != nil {
		return Image{}, err
	}
	snapshot, err := i.snapshot(ctx, c, spec, source)
	if err != nil {
		return Image{}, err
	}
	err = i.store.Clone(ctx, c, source.ImageRef, snapshot, spec.ImageRef, spec.Layout)
	if errors.Is(err, ErrImageExists) {
		// The name is taken, yet there is no image behind it: see begin.
		if err = i.removeRemains(ctx, c, spec.ImageRef); err == nil {
			err = i.store.Clone(ctx, c, source.ImageRef, snapshot, spec.ImageRef, spec.Layout)
		}
	}
	var img Image
	if err == nil {
		img, err = i.store.Get(ctx, c, spec.ImageRef)
	}
	if err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	return img, nil
}

// beginCloneAnew puts another in the place of a clone whose making was cut short inside
// Ceph, where it is not known how far it came.
func (i *Images) beginCloneAnew(ctx context.Context, c Cluster, spec ImageSpec, img Image) (Image, error) {
	source, err := i.sourceOf(ctx, c, spec)
	if err != nil {
		return Image{}, err
	}
	has := img.Owner()
	begun, err := i.begun(ctx, c, spec, img, source)
	if err != nil {
		return Image{}, err
	}
	// What it has of metadata is its source's, and not that of the same claim elsewhere.
	halfMade := img.Parent != nil && ofOurs(img.Parent.Name) && has.ClaimUID != spec.Owner.ClaimUID && has.sameMaker(spec.Owner)
	if !begun && !halfMade {
		return Image{}, fmt.Errorf("%w: %s already exists for %s", ErrNotOurs, img.ImageRef, img.Owner())
	}
	return i.replaceClone(ctx, c, spec)
}

// begun tells whether an image with neither parent nor owner is the beginning of the
// clone: the snapshot that was taken for it says so or, where it was to share one, that
// nothing was ever written to it.
func (i *Images) begun(ctx context.Context, c Cluster, spec ImageSpec, img, source Image) (bool, error) {
	if img.Parent != nil || !img.Owner().Unknown() {
		return false, nil
	}
	if slices.Contains(source.Snapshots, snapshotFor(spec.ImageRef)) {
		return true, nil
	}
	if len(oursOf(source)) < maxSnapshots {
		return false, nil
	}
	written, err := i.store.Written(ctx, c, spec.ImageRef, "")
	return err == nil && !written, err
}

// replaceClone makes the clone anew, in the place of one that nobody was ever given.
func (i *Images) replaceClone(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	if err := i.store.Trash(ctx, c, spec.ImageRef, markOf(spec.Owner)); err != nil && !errors.Is(err, ErrImageNotFound) {
		return Image{}, fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	return i.beginClone(ctx, c, spec)
}

// sourceOf returns the source if a clone as wanted can be made of it.
func (i *Images) sourceOf(ctx context.Context, c Cluster, spec ImageSpec) (Image, error) {
	source, err := i.store.Get(ctx, c, spec.Source.ImageRef)
	switch {
	case errors.Is(err, ErrImageNotFound), errors.Is(err, ErrPoolNotFound):
		return Image{}, fmt.Errorf("%w: %w", ErrSourceNotFound, err)
	case err != nil:
		return Image{}, err
	}
	if err := belongs(source, spec.Source.Expect); err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrSourceNotFound, err)
	}
	switch {
	case !source.Features.Has(Layering):
		return Image{}, fmt.Errorf("%w: %s has the features %q, and %s is not among them", ErrSourceUnfit, source.ImageRef, source.Features, Layering)
	case source.Size > spec.Size:
		return Image{}, fmt.Errorf("%w: %s has a size of %s: ask for as much or more", ErrSourceUnfit, source.ImageRef, quantity(source.Size))
	case spec.Size > MaxObjects*source.ObjectSize:
		return Image{}, fmt.Errorf("%w: with objects of %s, like those of %s, an image cannot be so large: ask for %s or less",
			ErrSourceUnfit, quantity(source.ObjectSize), source.ImageRef, quantity(MaxObjects*source.ObjectSize))
	case spec.Source.Unmounted && len(source.Watchers) > 0:
		return Image{}, fmt.Errorf("%w: %w", ErrSourceUnfit, inUse(source))
	}
	return source, nil
}

// snapshot takes the clone's snapshot of the source and returns the one to make the
// clone of, which is another if the source has many and was not written to since.
func (i *Images) snapshot(ctx context.Context, c Cluster, spec ImageSpec, source Image) (string, error) {
	own := snapshotFor(spec.ImageRef)
	others := slices.DeleteFunc(oursOf(source), func(name string) bool { return name == own })
	crowded := len(others) >= maxSnapshots
	switch {
	case len(source.Snapshots) >= mappable && !crowded:
		return "", fmt.Errorf("%w: %s has %d snapshots, and with many more no node could map it: remove those that are not needed (`rbd snap ls`, `rbd snap rm`)",
			ErrSourceUnfit, source.ImageRef, len(source.Snapshots))
	case crowded && i.unchanged(ctx, c, source, others[len(others)-1]):
		return others[len(others)-1], nil
	case crowded && !i.copies.room():
		return "", fmt.Errorf("%w: others come first, %d at a time", ErrCopying, maxCopies)
	case spec.Source.Unmounted && slices.Contains(source.Snapshots, own):
		// An earlier attempt may not have come to the point of looking who has it mapped.
		if err := i.store.Release(ctx, c, SnapshotRef{source.Pool, source.ID, own}); err != nil {
			return "", err
		}
	}
	if err := i.store.Snapshot(ctx, c, source.ImageRef, own); err != nil {
		return "", err
	}
	if !spec.Source.Unmounted {
		return own, nil
	}
	now, err := i.store.Get(ctx, c, source.ImageRef)
	if err == nil && len(now.Watchers) > 0 {
		_ = i.store.Release(ctx, c, SnapshotRef{source.Pool, source.ID, own}) // the next attempt does it, too
		err = fmt.Errorf("%w: %w", ErrSourceUnfit, inUse(now))
	}
	return own, err
}

// unchanged tells whether a snapshot shows the source as it is now.
func (i *Images) unchanged(ctx context.Context, c Cluster, source Image, snapshot string) bool {
	ctx, cancel := context.WithTimeout(ctx, unchangedPatience)
	defer cancel()
	written, err := i.store.Written(ctx, c, source.ImageRef, snapshot)
	return err == nil && !written
}

// cloneFits tells whether a clone of ours may become the spec's.
func cloneFits(img Image, spec ImageSpec) error {
	if img.Size > spec.Size {
		return fmt.Errorf("%w: %s already exists with a size of %d bytes, wanted are %d",
			ErrMismatch, img.ImageRef, img.Size, spec.Size)
	}
	return sameLayout(img, spec)
}

// finishClone gives a clone what it lacks.
func (i *Images) finishClone(ctx context.Context, c Cluster, spec ImageSpec, img *Image) error {
	items := spec.Owner.missingFrom(img.Metadata)
	finished := !slices.ContainsFunc(items, isVolumeName)
	if finished && img.Size == spec.Size {
		return nil
	}
	if n := slices.IndexFunc(items, isVolumeName); n >= 0 {
		items = append(slices.Delete(slices.Clone(items), n, n+1), items[n]) // last, not before all is done
	}
	if img.Parent != nil && img.Metadata[metaSource] != img.Parent.String() {
		// It has the size of its source until it is told another.
		items = slices.Insert(items, 0, MetadataItem{metaSource, img.Parent.String()}, MetadataItem{metaSourceSize, strconv.FormatUint(img.Size, 10)})
	}
	if img.Metadata[MetaDeletedBy] != "" {
		items = slices.Insert(items, 0, MetadataItem{MetaDeletedBy, ""}) // its source was to be deleted once, not this
	}
	if img.Metadata[metaHandedOut] != "" {
		items = slices.Insert(items, 0, MetadataItem{metaHandedOut, ""}) // nor was this handed out
	}
	if err := i.cutOff(ctx, c, spec, img, items); err != nil {
		return err
	}
	if err := i.store.Complete(ctx, c, spec.ImageRef, items, spec.Size); err != nil {
		return err
	}
	metadata := map[string]string{}
	maps.Copy(metadata, img.Metadata)
	for _, item := range items {
		metadata[item.Key] = item.Value
	}
	img.Metadata, img.Size = metadata, spec.Size
	return nil
}

func isVolumeName(item MetadataItem) bool { return item.Key == metaVolumeName }

// cutOff copies the data of its source into the clone, if it must have it itself, and
// takes the snapshot away that was taken for it but has no clone.
func (i *Images) cutOff(ctx context.Context, c Cluster, spec ImageSpec, img *Image, items []MetadataItem) error {
	source, err := i.store.Get(ctx, c, spec.Source.ImageRef)
	if errors.Is(err, ErrImageNotFound) {
		return nil // it is in the trash, where its snapshots are no matter to anybody
	}
	if err != nil {
		return err
	}
	deep, err := i.tooDeep(ctx, c, spec, img, source)
	if err != nil {
		return err
	}
	if deep {
		// Who it is must be known before anything is written to it.
		unnamed := slices.DeleteFunc(slices.Clone(items), isVolumeName)
		if err := i.store.Complete(ctx, c, spec.ImageRef, unnamed, spec.Size); err != nil {
			return err
		}
		if err := i.copies.do(ctx, copyName(c, spec.ImageRef), func(ctx context.Context) error {
			return i.store.Flatten(ctx, c, spec.ImageRef)
		}); err != nil {
			return err
		}
		img.Parent = nil
	}
	own := snapshotFor(spec.ImageRef)
	if img.Parent != nil && img.Parent.Name == own || !slices.Contains(source.Snapshots, own) {
		return nil
	}
	err = i.store.Release(ctx, c, SnapshotRef{source.Pool, source.ID, own})
	if errors.Is(err, ErrHasClones) {
		return nil // what was begun before is still in the trash, and takes it along
	}
	return err
}

// tooDeep tells whether a bound of clones wants the clone to have its data itself.
func (i *Images) tooDeep(ctx context.Context, c Cluster, spec ImageSpec, img *Image, source Image) (bool, error) {
	if img.Parent == nil {
		return false, nil
	}
	if img.Parent.Name == snapshotFor(spec.ImageRef) && len(oursOf(source)) > maxSnapshots {
		return true, nil
	}
	if source.Parent == nil {
		return false, nil // it takes a while to look from parent to parent
	}
	depth, err := i.store.Depth(ctx, c, spec.ImageRef)
	return depth > maxDepth, err
}

func copyName(c Cluster, ref ImageRef) string { return c.String() + " " + ref.String() }

// HandOut notes on a clone that there is a volume for it.
func (i *Images) HandOut(ctx context.Context, c Cluster, ref ImageRef) error {
	img, err := i.store.Get(ctx, c, ref)
	if err != nil || img.Metadata[metaHandedOut] != "" {
		return err
	}
	err = i.store.Complete(ctx, c, ref, []MetadataItem{{metaHandedOut, "true"}}, img.Size)
	if errors.Is(err, ErrInvalid) {
		return nil // it has grown meanwhile
	}
	return err
}

// ReleaseOrphans removes the snapshots of an image that were taken for clones which are
// of no use to anybody, as far as they have no clones. What was begun of such a clone in
// the same pool goes with it.
func (i *Images) ReleaseOrphans(ctx context.Context, c Cluster, ref ImageRef, owner Owner, useless func(clone string) bool) error {
	img, err := i.store.Get(ctx, c, ref)
	if errors.Is(err, ErrImageNotFound) {
		return nil
	}
	if err != nil || !img.Owner().sameMaker(owner) {
		return err
	}
	var errs []error
	for _, snapshot := range img.Snapshots {
		clone, ours := CloneOf(snapshot)
		if !ours || !useless(clone) {
			continue
		}
		err := i.removeBeginning(ctx, c, ImageRef{ref.Pool, clone}, owner)
		if err == nil {
			err = i.store.Release(ctx, c, SnapshotRef{img.Pool, img.ID, snapshot})
		}
		if err != nil && !errors.Is(err, ErrHasClones) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeBeginning takes away what there is of a clone that was begun inside Ceph and has
// come neither to a parent nor to an owner. The snapshot that bears its name tells whose
// it is.
func (i *Images) removeBeginning(ctx context.Context, c Cluster, ref ImageRef, owner Owner) error {
	img, err := i.store.Get(ctx, c, ref)
	if errors.Is(err, ErrImageNotFound) {
		return nil
	}
	if err != nil || img.Parent != nil || !img.Owner().Unknown() || len(img.Watchers) > 0 || len(img.Snapshots) > 0 {
		return err
	}
	if written, err := i.store.Written(ctx, c, ref, ""); err != nil || written {
		return err
	}
	return i.store.Trash(ctx, c, ref, markOf(owner))
}
