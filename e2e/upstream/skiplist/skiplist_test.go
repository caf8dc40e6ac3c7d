package skiplist

import (
	"strings"
	"testing"

	"github.com/onsi/ginkgo/v2/types"
)

const example = `
skippedBySuite:
- specs: snapshot
  reason: There are no snapshots.
wouldFail:
- specs: clones? by CSI
  reason: The suite expects a CSI volume.
`

func spec(state types.SpecState, name, message string) types.SpecReport {
	return types.SpecReport{
		LeafNodeType: types.NodeTypeIt,
		LeafNodeText: "External [Testpattern: Dynamic PV] " + name,
		State:        state,
		Failure:      types.Failure{Message: message},
	}
}

// everything has one spec for each entry of the example.
func everything(more ...types.SpecReport) types.SpecReports {
	return append(types.SpecReports{
		spec(types.SpecStatePassed, "should store data", ""),
		spec(types.SpecStateSkipped, "should take a snapshot", "not supported"),
		spec(types.SpecStateSkipped, "should clone by CSI", "The suite expects a CSI volume."),
		spec(types.SpecStateSkipped, "filtered", ""),
	}, more...)
}

func TestReport(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		specs   types.SpecReports
		focus   []string
		want    string
		problem string
	}{
		"all as listed": {
			specs: everything(),
			want: `
skipped 1: There are no snapshots.
  [Dynamic PV] should take a snapshot

skipped 1: The suite expects a CSI volume.
  [Dynamic PV] should clone by CSI

1 passed, 0 failed, 2 skipped as listed, 1 not selected, 0 problems with the list
`,
		},
		"a failed spec is no problem of the list": {
			specs: everything(spec(types.SpecStateFailed, "should expand", "timed out\nand more")),
			want:  "\n[Dynamic PV] should expand: failed: timed out\n1 passed, 1 failed,",
		},
		"skipped without an entry": {
			specs:   everything(spec(types.SpecStateSkipped, "should be ephemeral", "not supported")),
			problem: "[Dynamic PV] should be ephemeral: skipped without an entry in the list: not supported",
		},
		"listed, but it ran": {
			specs:   everything(spec(types.SpecStatePassed, "should restore a snapshot", "")),
			problem: "[Dynamic PV] should restore a snapshot: passed, but the list says that it is skipped: There are no snapshots.",
		},
		"an entry without a spec": {
			specs:   everything()[:2],
			problem: `the list has an entry for "clones? by CSI", but the suite has no such spec`,
		},
		"a focus on nothing": {
			specs:   everything(),
			focus:   []string{"store data", "stroe data"},
			problem: `the suite has no spec that matches "stroe data"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, err := Parse([]byte(example))
			if err != nil {
				t.Fatal(err)
			}
			text, err := list.Report(test.specs, test.focus)
			if !strings.Contains(text, test.want) {
				t.Errorf("the report has no %q:\n%s", test.want, text)
			}
			switch {
			case test.problem == "" && err != nil:
				t.Error(err)
			case test.problem != "" && (err == nil || err.Error() != test.problem):
				t.Errorf("got error %v, want %s", err, test.problem)
			}
		})
	}
}

func TestExcludedSpecsAreThoseThatWouldFail(t *testing.T) {
	t.Parallel()
	list, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if entry := list.Excluded("should clone by CSI"); entry == nil {
		t.Error("a spec that would fail is not excluded")
	}
	if entry := list.Excluded("should take a snapshot"); entry != nil {
		t.Errorf("the suite must skip it, but it is excluded: %s", entry.Reason)
	}
}

func TestParseRefusesIncompleteEntries(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"wouldFail: [{specs: clone}]",
		"wouldFail: [{reason: because}]",
		"wouldFail: [{specs: '(', reason: because}]",
		"wouldfail: []\nother: []",
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("Parse(%q) returned no error", text)
		}
	}
}
