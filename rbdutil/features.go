package rbdutil

import (
	"fmt"
	"strings"
)

// Features is a set of RBD image features. The values are Ceph's own bits
// (include/rbd/features.h), so that a set can be handed to librbd as it is.
type Features uint64

// The features that a Kubernetes node's kernel client can map.
const (
	Layering      Features = 1 << 0
	ExclusiveLock Features = 1 << 2
	ObjectMap     Features = 1 << 3
	FastDiff      Features = 1 << 4
	DeepFlatten   Features = 1 << 5
)

// The features below are never asked for, only recognised.
const (
	stripingV2 Features = 1 << 1
	journaling Features = 1 << 6
	dataPool   Features = 1 << 7
	operations Features = 1 << 8
	migrating  Features = 1 << 9
)

// implicit features follow from something else than the user's list of features:
// a data pool, or snapshots and clones that Ceph itself keeps track of.
const implicit = dataPool | operations

// featureNames in the order in which `rbd info` prints them.
var featureNames = []struct {
	bit  Features
	name string
}{
	{Layering, "layering"},
	{stripingV2, "striping"},
	{ExclusiveLock, "exclusive-lock"},
	{ObjectMap, "object-map"},
	{FastDiff, "fast-diff"},
	{DeepFlatten, "deep-flatten"},
	{journaling, "journaling"},
	{dataPool, "data-pool"},
	{operations, "operations"},
	{migrating, "migrating"},
}

// Supported lists the names that ParseFeatures takes.
func Supported() []string {
	return strings.Split((Layering | ExclusiveLock | ObjectMap | FastDiff | DeepFlatten).String(), ",")
}

// ParseFeatures reads a comma-separated list of feature names, as in the
// StorageClass parameter imageFeatures. White space around names and empty
// entries are ignored; dependencies between features are checked.
func ParseFeatures(list string) (Features, error) {
	var set Features
	for _, name := range strings.Split(list, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		bit, err := parseFeature(name)
		if err != nil {
			return 0, err
		}
		set |= bit
	}
	return set, set.checkDependencies()
}

func parseFeature(name string) (Features, error) {
	for _, f := range featureNames {
		if f.name != name {
			continue
		}
		switch f.bit {
		case Layering, ExclusiveLock, ObjectMap, FastDiff, DeepFlatten:
			return f.bit, nil
		case journaling:
			return 0, fmt.Errorf("%s: no kernel client maps an image with journaling", name)
		default:
			// Ceph's own, not to be asked for.
		}
	}
	return 0, fmt.Errorf("%q is not a feature that can be asked for", name)
}

func (f Features) checkDependencies() error {
	for _, d := range []struct{ feature, needs Features }{
		{ObjectMap, ExclusiveLock},
		{FastDiff, ObjectMap},
	} {
		if f.Has(d.feature) && !f.Has(d.needs) {
			return fmt.Errorf("%s needs %s beside it", d.feature, d.needs)
		}
	}
	return nil
}

// Has tells whether all of the other set is in this one.
func (f Features) Has(other Features) bool { return f&other == other }

// Requested returns the set without the features that nobody asks for by name.
func (f Features) Requested() Features { return f &^ implicit }

// SameAs tells whether an image with this set is one that was made with the other:
// Ceph never makes object-map without fast-diff.
func (f Features) SameAs(other Features) bool { return f.withFastDiff() == other.withFastDiff() }

func (f Features) withFastDiff() Features {
	if f.Has(ObjectMap) {
		f |= FastDiff
	}
	return f
}

// String prints the names as imageFeatures takes them: comma-separated, no space.
func (f Features) String() string {
	var names []string
	for _, n := range featureNames {
		if f.Has(n.bit) {
			names = append(names, n.name)
			f &^= n.bit
		}
	}
	if f != 0 {
		names = append(names, fmt.Sprintf("%#x", uint64(f)))
	}
	return strings.Join(names, ",")
}
