package rbdutil

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFeatures(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		list string
		want Features
		err  string // all of the error's text
	}{
		"an empty list":                             {list: ""},
		"white space and commas":                    {list: " , ,\t,"},
		"layering":                                  {list: "layering", want: Layering},
		"exclusive-lock has no dependency":          {list: "exclusive-lock", want: ExclusiveLock},
		"deep-flatten has no dependency":            {list: "deep-flatten", want: DeepFlatten},
		"object-map with its lock":                  {list: "exclusive-lock,object-map", want: ExclusiveLock | ObjectMap},
		"dependencies may come in any order":        {list: "fast-diff,object-map,exclusive-lock", want: ExclusiveLock | ObjectMap | FastDiff},
		"white space around names is ignored":       {list: "\tlayering ,  exclusive-lock\n", want: Layering | ExclusiveLock},
		"empty entries are ignored":                 {list: ",layering,,exclusive-lock,", want: Layering | ExclusiveLock},
		"a name given twice counts once":            {list: "layering,layering", want: Layering},
		"all supported features":                    {list: "layering,exclusive-lock,object-map,fast-diff,deep-flatten", want: Layering | ExclusiveLock | ObjectMap | FastDiff | DeepFlatten},
		"object-map without its lock":               {list: "layering,object-map", err: "object-map requires exclusive-lock"},
		"fast-diff without its map":                 {list: "exclusive-lock,fast-diff", err: "fast-diff requires object-map"},
		"fast-diff alone":                           {list: "fast-diff", err: "fast-diff requires object-map"},
		"journaling":                                {list: "layering,exclusive-lock,journaling", err: "journaling: no kernel client maps an image with journaling"},
		"striping is a layout, not a feature":       {list: "striping", err: `"striping" is not a supported feature`},
		"data-pool follows from the data pool":      {list: "layering,data-pool", err: `"data-pool" is not a supported feature`},
		"operations is set by Ceph":                 {list: "operations", err: `"operations" is not a supported feature`},
		"migrating is set by Ceph":                  {list: "migrating", err: `"migrating" is not a supported feature`},
		"names are in lower case":                   {list: "Layering", err: `"Layering" is not a supported feature`},
		"names are separated by commas, not blanks": {list: "layering exclusive-lock", err: `"layering exclusive-lock" is not a supported feature`},
		"a number is not a name":                    {list: "1", err: `"1" is not a supported feature`},
		"a misspelt name":                           {list: "exclusive_lock", err: `"exclusive_lock" is not a supported feature`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseFeatures(test.list)
			if text := textOf(err); text != test.err {
				t.Fatalf("ParseFeatures(%q) failed with %q, want %q", test.list, text, test.err)
			}
			if err == nil && got != test.want {
				t.Errorf("ParseFeatures(%q) = %s, want %s", test.list, got, test.want)
			}
		})
	}
}

func TestSupportedFeaturesAreThoseThatParse(t *testing.T) {
	t.Parallel()
	want := []string{"layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"}
	if diff := cmp.Diff(want, Supported()); diff != "" {
		t.Errorf("Supported() (-want +got):\n%s", diff)
	}
	for _, f := range featureNames {
		// The list has all dependencies; journaling requires exclusive-lock.
		_, err := ParseFeatures("exclusive-lock,object-map," + f.name)
		supported := strings.Contains(","+strings.Join(Supported(), ",")+",", ","+f.name+",")
		if parses := err == nil; parses != supported {
			t.Errorf("%s: parses: %t, supported: %t", f.name, parses, supported)
		}
	}
}

func TestFeaturesPrintAsTheyParse(t *testing.T) {
	t.Parallel()
	const all = Layering | ExclusiveLock | ObjectMap | FastDiff | DeepFlatten
	for set := Features(0); set <= all; set++ {
		if set&^all != 0 || set.checkDependencies() != nil {
			continue
		}
		if got, err := ParseFeatures(set.String()); err != nil || got != set {
			t.Errorf("ParseFeatures(%q) = %s, %v", set, got, err)
		}
	}
}

func FuzzParseFeatures(f *testing.F) {
	for _, list := range []string{
		"", ",", "layering", " layering ,\texclusive-lock", "exclusive-lock,object-map,fast-diff", "fast-diff", "journaling",
		"layering exclusive-lock", "Layering", "data-pool", "0x3d", "\x00", "layering,layering,,deep-flatten",
	} {
		f.Add(list)
	}
	const all = Layering | ExclusiveLock | ObjectMap | FastDiff | DeepFlatten
	f.Fuzz(func(t *testing.T, list string) {
		set, err := ParseFeatures(list)
		if err != nil {
			return
		}
		if set&^all != 0 || set.checkDependencies() != nil {
			t.Errorf("ParseFeatures(%q) = %s", list, set)
		}
		if again, err := ParseFeatures(set.String()); again != set || err != nil {
			t.Errorf("%q gives %s, which gives %s, %v", list, set, again, err)
		}
	})
}

func TestFeaturesPrintWhatCephAdds(t *testing.T) {
	t.Parallel()
	for want, set := range map[string]Features{
		"":                              0,
		"layering,data-pool":            Layering | dataPool,
		"striping,journaling,migrating": stripingV2 | journaling | migrating,
		"layering,operations,0x10000":   Layering | operations | 1<<16,
	} {
		if got := set.String(); got != want {
			t.Errorf("%#x prints as %q, want %q", uint64(set), got, want)
		}
	}
	set := Layering | ExclusiveLock | dataPool | operations
	if got := set.Requested(); got != Layering|ExclusiveLock {
		t.Errorf("Requested() of %s = %s", set, got)
	}
}

func TestFeaturesThatCephMakesAlikeAreTheSame(t *testing.T) {
	t.Parallel()
	const withMap, withDiff = ExclusiveLock | ObjectMap, ExclusiveLock | ObjectMap | FastDiff
	for name, test := range map[string]struct {
		one, other Features
		want       bool
	}{
		"a set is its own":                          {Layering | DeepFlatten, Layering | DeepFlatten, true},
		"object-map comes with fast-diff":           {withMap, withDiff, true},
		"object-map with other features":            {Layering | withMap, Layering | withDiff, true},
		"one feature more":                          {Layering, Layering | ExclusiveLock, false},
		"object-map is not exclusive-lock alone":    {ExclusiveLock, withDiff, false},
		"fast-diff does not hide other differences": {withMap, Layering | withDiff, false},
		"no feature is not layering":                {0, Layering, false},
	} {
		if got := test.one.SameAs(test.other); got != test.want {
			t.Errorf("%s: %s same as %s: %t", name, test.one, test.other, got)
		}
		if got := test.other.SameAs(test.one); got != test.want {
			t.Errorf("%s: %s same as %s: %t", name, test.other, test.one, got)
		}
	}
}

// textOf returns the text of an error, or "".
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
