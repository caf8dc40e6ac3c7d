// Package skiplist compares the specs that a run skipped with the list of those that may be
// skipped, and renders the report of the run.
package skiplist

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/onsi/ginkgo/v2/types"
	"sigs.k8s.io/yaml"
)

// List names the specs that do not run.
type List struct {
	// SkippedBySuite are skipped by the suite, because of what driver.yaml says.
	SkippedBySuite []*Entry `json:"skippedBySuite"`
	// WouldFail are excluded here, because the suite would run them and they cannot pass.
	WouldFail []*Entry `json:"wouldFail"`
}

// Entry is a set of specs with one reason.
type Entry struct {
	// Specs is a regular expression for the names of the specs.
	Specs string `json:"specs"`
	// Reason says why they do not run.
	Reason string `json:"reason"`

	specs *regexp.Regexp
}

// Parse reads a list.
func Parse(data []byte) (*List, error) {
	list := &List{}
	if err := yaml.UnmarshalStrict(data, list); err != nil {
		return nil, fmt.Errorf("list of skipped specs: %w", err)
	}
	for _, entry := range list.entries() {
		if entry.Specs == "" || entry.Reason == "" {
			return nil, fmt.Errorf("list of skipped specs: entry %q has no specs or no reason", entry.Specs+entry.Reason)
		}
		var err error
		if entry.specs, err = regexp.Compile(entry.Specs); err != nil {
			return nil, fmt.Errorf("list of skipped specs: %w", err)
		}
	}
	return list, nil
}

func (l *List) entries() []*Entry { return slices.Concat(l.SkippedBySuite, l.WouldFail) }

// Excluded returns the entry of WouldFail for a spec, or nil.
func (l *List) Excluded(name string) *Entry { return find(l.WouldFail, name) }

func find(entries []*Entry, name string) *Entry {
	for _, entry := range entries {
		if entry.specs.MatchString(name) {
			return entry
		}
	}
	return nil
}

// Name returns the name of a spec without the parts that all have.
func Name(spec types.SpecReport) string {
	_, name, found := strings.Cut(spec.FullText(), "[Testpattern: ")
	if !found {
		return spec.FullText()
	}
	return "[" + name
}

// HasRun reports whether the spec was selected: it ran, or it was skipped during the run. Specs
// that a filter removed have no message.
func HasRun(spec types.SpecReport) bool {
	return spec.LeafNodeType == types.NodeTypeIt &&
		(spec.State != types.SpecStateSkipped || spec.Failure.Message != "") && spec.State != types.SpecStatePending
}

// Report renders the results of a run. It fails if a spec was skipped that is not in the list,
// if the list has an entry that is not true, and if an expression of the focus selected no spec.
func (l *List) Report(specs types.SpecReports, focus []string) (string, error) {
	r := report{list: l, skipped: map[*Entry][]string{}, states: map[types.SpecState]int{}}
	for _, spec := range specs {
		if spec.LeafNodeType == types.NodeTypeIt {
			r.add(spec)
		}
	}
	for _, entry := range l.entries() {
		if !slices.ContainsFunc(specs, func(spec types.SpecReport) bool { return entry.specs.MatchString(spec.FullText()) }) {
			r.problem("the list has an entry for %q, but the suite has no such spec", entry.Specs)
		}
	}
	for _, expression := range focus {
		if !slices.ContainsFunc(specs, func(spec types.SpecReport) bool {
			matched, err := regexp.MatchString(expression, spec.FullText())
			return err == nil && matched
		}) {
			r.problem("the suite has no spec that matches %q", expression)
		}
	}
	return r.String(), errors.Join(r.problems...)
}

type report struct {
	list     *List
	skipped  map[*Entry][]string
	failed   []string
	states   map[types.SpecState]int
	filtered int
	problems []error
}

func (r *report) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Errorf(format, args...))
}

func (r *report) add(spec types.SpecReport) {
	if !HasRun(spec) {
		r.filtered++
		return
	}
	r.states[spec.State]++
	name, entry := Name(spec), find(r.list.entries(), spec.FullText())
	switch {
	case spec.State == types.SpecStateSkipped && entry == nil:
		r.problem("%s: skipped without an entry in the list: %s", name, spec.Failure.Message)
	case spec.State == types.SpecStateSkipped:
		r.skipped[entry] = append(r.skipped[entry], name)
	case entry != nil:
		r.problem("%s: %s, but the list says that it is skipped: %s", name, spec.State, entry.Reason)
	case spec.State != types.SpecStatePassed:
		message, _, _ := strings.Cut(spec.Failure.Message, "\n")
		r.failed = append(r.failed, fmt.Sprintf("%s: %s: %s", name, spec.State, message))
	}
}

// String renders the skipped specs by reason, the failed ones, and the totals.
func (r *report) String() string {
	var text strings.Builder
	for _, entry := range r.list.entries() {
		names := r.skipped[entry]
		if len(names) == 0 {
			continue
		}
		fmt.Fprintf(&text, "\nskipped %d: %s\n", len(names), entry.Reason)
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(&text, "  %s\n", name)
		}
	}
	for _, failed := range r.failed {
		fmt.Fprintf(&text, "\n%s", failed)
	}
	for _, err := range r.problems {
		fmt.Fprintf(&text, "\nproblem: %v", err)
	}
	fmt.Fprintf(&text, "\n%d passed, %d failed, %d skipped as listed, %d not selected, %d problems with the list\n",
		r.states[types.SpecStatePassed], len(r.failed), r.states[types.SpecStateSkipped], r.filtered, len(r.problems))
	return text.String()
}
