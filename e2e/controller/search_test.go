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

// search finds any of many keys in one pass.
type search struct {
	keys     []string
	patterns *strings.Replacer // replaces all forms of all keys by nothing
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

// find returns which key the text contains and in which form, without the key itself.
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

// cephLogs are the prefixes of the logs of Ceph's daemons, which may contain keys.
var cephLogs = []string{"mon.", "mgr.", "osd.", "cluster"}

// checkKeys searches for the keys of all tests in the directory of the lab's logs. It has the
// provisioners' logs, some with the highest verbosity, the visible state of their processes,
// and their metrics. It also has all events, claims, volumes and classes, and the logs of the
// Kubernetes servers with the audit log.
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
	_, _ = fmt.Fprintf(out, "searched for %d keys in these numbers of bytes: %v\n", len(search.keys), kinds)
	for _, kind := range []string{"provisioner.log", "provisioner.proc", "provisioner.metrics", "objects.json", "kube.log"} {
		if kinds[kind] == 0 {
			problems = append(problems, fmt.Errorf("no data of %s to search in", kind))
		}
	}
	return errors.Join(problems...)
}

// realKeys returns the keys without short ones, which tests made up and which may occur by
// chance.
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
