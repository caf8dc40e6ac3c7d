package rbdutil

import (
	"fmt"
	"strings"
)

// Features is a set of RBD image features. The values are those of Ceph
// (include/rbd/features.h), so librbd accepts a set without conversion.
type Features uint64

// The features that the kernel client of a node can map.
const (
	Layering      Features = 1 << 0
	ExclusiveLock Features = 1 << 2
	ObjectMap     Features = 1 << 3
	FastDiff      Features = 1 << 4
	DeepFlatten   Features = 1 << 5
)

// The features that cannot be requested, but that an image may have.
const (
	stripingV2 Features = 1 << 1
	journaling Features = 1 << 6
	dataPool   Features = 1 << 7
	operations Features = 1 << 8
	migrating  Features = 1 << 9
)

// implicit features are not in the user's list: they follow from a data pool, or from
// snapshots and clones.
const implicit = dataPool | operations

// featureNames are in the order in which `rbd info` prints them.
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

// Supported lists the names that ParseFeatures accepts.
func Supported() []string {
	return strings.Split((Layering | ExclusiveLock | ObjectMap | FastDiff | DeepFlatten).String(), ",")
}

// ParseFeatures parses a comma-separated list of feature names, as in the StorageClass
// parameter imageFeatures. It ignores white space around names and empty entries, and checks
// the dependencies between features.
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
			// Ceph sets it; it cannot be requested.
		}
	}
	return 0, fmt.Errorf("%q is not a supported feature", name)
}

func (f Features) checkDependencies() error {
	for _, d := range []struct{ feature, needs Features }{
		{ObjectMap, ExclusiveLock},
		{FastDiff, ObjectMap},
	} {
		if f.Has(d.feature) && !f.Has(d.needs) {
			return fmt.Errorf("%s requires %s", d.feature, d.needs)
		}
	}
	return nil
}

// Has reports whether the set contains all features of the other set.
func (f Features) Has(other Features) bool { return f&other == other }

// Requested returns the set without the implicit features.
func (f Features) Requested() Features { return f &^ implicit }

// SameAs reports whether an image with this set was created with the other set. Ceph always
// adds fast-diff to object-map.
func (f Features) SameAs(other Features) bool { return f.withFastDiff() == other.withFastDiff() }

func (f Features) withFastDiff() Features {
	if f.Has(ObjectMap) {
		f |= FastDiff
	}
	return f
}

// String returns the names as imageFeatures accepts them: comma-separated, without white
// space.
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
