// Package docs holds the documents. Its tests compare them with the code.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// maxReadmeWords keeps the README readable in one sitting.
const maxReadmeWords = 1000

func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	if words := len(strings.Fields(read(t, "../README.md"))); words > maxReadmeWords {
		t.Errorf("README.md has %d words, at most %d are allowed: move details to docs/", words, maxReadmeWords)
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	for _, file := range documents(t) {
		for _, target := range links(read(t, file)) {
			path, anchor, _ := strings.Cut(target, "#")
			linked := file
			if path != "" {
				linked = filepath.Join(filepath.Dir(file), path)
			}
			if _, err := os.Stat(linked); err != nil {
				t.Errorf("%s: link %q: %v", file, target, err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, linked)), anchor) {
				t.Errorf("%s: link %q: %s has no such heading", file, target, linked)
			}
		}
	}
}

func TestEveryDocumentIsLinkedFromTheReadme(t *testing.T) {
	t.Parallel()
	targets := links(read(t, "../README.md"))
	files, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !slices.ContainsFunc(targets, func(target string) bool { return strings.HasPrefix(target, "docs/"+file) }) {
			t.Errorf("README.md has no link to docs/%s", file)
		}
	}
}

func TestEventsAreListed(t *testing.T) {
	t.Parallel()
	sources := parseProduct(t)
	used := append(sources.constants(eventReason), sources.eventLiterals()...)
	for _, reason := range parseLibrary(t).eventLiterals() {
		// The library sends it only without CreateProvisionedPVLimiter, which the provisioner uses.
		if reason != "ProvisioningCleanupFailed" {
			used = append(used, reason)
		}
	}
	compareLists(t, "reasons in operations.md, Events", used, column(t, "operations.md", "Events", 1))
}

func TestAnnotationsAreListed(t *testing.T) {
	t.Parallel()
	used := parseProduct(t).constants(annotationName)
	compareLists(t, "annotations in operations.md, Annotations", used, column(t, "operations.md", "Annotations", 1))
}

func TestErrorsAreListed(t *testing.T) {
	t.Parallel()
	used := parseSources(t, "../rbdutil").sentinels()
	compareLists(t, "texts in troubleshooting.md, Errors of pools and images", used,
		column(t, "troubleshooting.md", "Errors of pools and images", 0))
}

func TestQuotedTextsExist(t *testing.T) {
	t.Parallel()
	sources := parseProduct(t)
	for _, text := range column(t, "troubleshooting.md", "Errors before Ceph is asked", 0) {
		if !slices.ContainsFunc(sources.strings, func(s string) bool { return strings.Contains(s, text) }) {
			t.Errorf("troubleshooting.md quotes %q, which is not in the code", text)
		}
	}
}

func TestParametersAreListed(t *testing.T) {
	t.Parallel()
	used := parseProduct(t).listWith("adminSecretName", "monitors", "pool")
	compareLists(t, "keys in storageclass.md, Parameters", used, column(t, "storageclass.md", "Parameters", 0))
}

// foreignFlags are flags of other programs that the documents mention.
var foreignFlags = []string{"--controllers", "--from-file"}

func TestFlagsExist(t *testing.T) {
	t.Parallel()
	defaults := flagDefaults(t)
	for _, file := range documents(t) {
		for _, span := range codeSpans(read(t, file)) {
			name := regexp.MustCompile(`^--[a-z-]+`).FindString(span)
			if _, known := defaults[name]; name != "" && !known && !slices.Contains(foreignFlags, name) {
				t.Errorf("%s mentions %s, which is not in command-line-flags.txt", file, name)
			}
		}
	}
}

func TestFlagDefaultsAreTrue(t *testing.T) {
	t.Parallel()
	defaults := flagDefaults(t)
	for _, row := range tableRows(t, "operations.md", "Flags") {
		names, values := codeSpans(row[0]), codeSpans(row[1])
		for i, value := range values {
			if got := defaults[names[i]]; !sameValue(got, value) {
				t.Errorf("operations.md: default %s of %s, command-line-flags.txt has %q", value, names[i], got)
			}
		}
	}
}

// flagDefaults returns the default of each flag, as text, by its name with the dashes.
func flagDefaults(t *testing.T) map[string]string {
	t.Helper()
	defaults := map[string]string{}
	for _, line := range strings.Split(read(t, "command-line-flags.txt"), "\n") {
		names := regexp.MustCompile(`^ +(?:(-[a-z]), )?(--[a-z-]+)`).FindStringSubmatch(line)
		if names == nil {
			continue
		}
		value := ""
		if found := regexp.MustCompile(`\(default "?([^")]*)"?\)$`).FindStringSubmatch(line); found != nil {
			value = found[1]
		}
		defaults[names[2]] = value
		if names[1] != "" {
			defaults[names[1]] = value
		}
	}
	return defaults
}

// sameValue reports whether two texts are the same, or the same duration. The default of a
// number is not in the output of --help if it is 0.
func sameValue(a, b string) bool {
	x, errX := time.ParseDuration(a)
	y, errY := time.ParseDuration(b)
	return a == b || errX == nil && errY == nil && x == y || a == "" && b == "0"
}

func TestMetricsExist(t *testing.T) {
	t.Parallel()
	known := regexp.MustCompile(`(?m)^[a-z_]+`).FindAllString(read(t, "metrics.txt"), -1)
	for _, file := range documents(t) {
		for _, span := range codeSpans(read(t, file)) {
			name := regexp.MustCompile(`^(rbd_provisioner|controller_persistentvolume)[a-z_]*$`).FindString(span)
			if name != "" && !slices.Contains(known, name) {
				t.Errorf("%s mentions %s, which is not in metrics.txt", file, name)
			}
		}
	}
}

func TestMakeTargetsExist(t *testing.T) {
	t.Parallel()
	makefile := read(t, "../Makefile")
	for _, file := range documents(t) {
		for _, found := range regexp.MustCompile("(?m)(?:`|^)make ([a-z0-9-]+)").FindAllStringSubmatch(read(t, file), -1) {
			if !strings.Contains(makefile, "\n"+found[1]+":") {
				t.Errorf("%s mentions make %s, which is not in the Makefile", file, found[1])
			}
		}
	}
}
