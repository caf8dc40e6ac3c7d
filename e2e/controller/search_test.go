//go:build e2e

package controller

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// search looks for many keys in one pass.
type search struct {
	keys     []string
	patterns *strings.Replacer // shortens a text that has any of the forms of any key
}

func newSearch(keys []string) *search {
	var patterns []string
	for _, key := range keys {
		for _, forms := range formsOf(key) {
			for _, pattern := range forms {
				patterns = append(patterns, pattern, "")
			}
		}
	}
	return &search{keys: keys, patterns: strings.NewReplacer(patterns...)}
}

// find tells in which form which of the keys is in the text, without showing it.
func (s *search) find(text string) string {
	dumped := string(hexDumped(text))
	if len(s.patterns.Replace(text)) == len(text) && len(s.patterns.Replace(dumped)) == len(dumped) {
		return ""
	}
	for i, key := range s.keys {
		if form := revealed(text, key); form != "" {
			return fmt.Sprintf("key %d of %d %s", i+1, len(s.keys), form)
		}
	}
	return "a key in the dump of another form"
}

// cephLogs are those of Ceph's own daemons, which are what keeps the keys.
var cephLogs = []string{"mon.", "mgr.", "osd.", "cluster"}

// checkKeys looks for the keys of all tests in all that the run has left in the folder
// of the lab's logs: what the provisioners have said, at the highest verbosity in
// several of the tests; what was to be seen of their processes and in their metrics;
// all events, claims, volumes and classes; what the servers of Kubernetes have said,
// their audit log among it.
func (r *wholeRun) checkKeys(out io.Writer, logs string) error {
	search := newSearch(r.realKeys())
	kinds := map[string]int{}
	var problems []error
	err := filepath.WalkDir(logs, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || startsWithAny(entry.Name(), cephLogs) {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.ModTime().Before(r.begun) {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if found := search.find(string(data)); found != "" {
			problems = append(problems, fmt.Errorf("%s has %s", path, found))
		}
		extension := filepath.Ext(path)
		kind, _, _ := strings.Cut(strings.TrimSuffix(entry.Name(), extension), "-")
		kinds[kind+extension] += len(data)
		return nil
	})
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "searched for %d keys in so many bytes: %v\n", len(search.keys), kinds)
	for _, kind := range []string{"provisioner.log", "provisioner.proc", "provisioner.metrics", "objects.json", "kube.log"} {
		if kinds[kind] == 0 {
			problems = append(problems, fmt.Errorf("there was nothing to search in of %s", kind))
		}
	}
	return errors.Join(problems...)
}

// realKeys leaves out those that tests have made up and that may stand anywhere.
func (r *wholeRun) realKeys() []string {
	const short = 32
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := map[string]struct{}{}
	for key := range r.keys {
		if key = strings.TrimSpace(key); len(key) >= short {
			keys[key] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

func startsWithAny(text string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(text, prefix) })
}
