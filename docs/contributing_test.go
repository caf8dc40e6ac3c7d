package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPackagesAreListed(t *testing.T) {
	t.Parallel()
	text := section(t, "../CONTRIBUTING.md", "Packages")
	var listed []string
	for _, found := range regexp.MustCompile(`(?m)^([a-z][a-z0-9/-]*)/ +\S`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("..", found[1])); err != nil {
			t.Errorf("CONTRIBUTING.md lists %s: %v", found[1], err)
		}
		listed = append(listed, found[1])
	}
	for _, dir := range packageDirs(t) {
		// Commands and helpers may be named in the line of another package.
		if !slices.Contains(listed, dir) && !strings.Contains(text, " "+dir) && !strings.Contains(text, filepath.Base(dir)+"/ ") {
			t.Errorf("CONTRIBUTING.md does not list %s", dir)
		}
	}
}

// packageDirs returns all directories with Go files, relative to the repository.
func packageDirs(t *testing.T) []string {
	t.Helper()
	var dirs []string
	for _, path := range filesWith(t, ".go") {
		dirs = append(dirs, strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../"))
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func TestFilesOfDecisionsExist(t *testing.T) {
	t.Parallel()
	dir := ""
	for _, row := range tableRows(t, "../CONTRIBUTING.md", "Where things are decided") {
		for _, span := range codeSpans(row[1]) {
			if !strings.HasSuffix(span, ".go") {
				continue
			}
			if strings.Contains(span, "/") {
				dir = filepath.Dir(span)
			} else {
				span = filepath.Join(dir, span) // a second file of the same package
			}
			if _, err := os.Stat(filepath.Join("..", span)); err != nil {
				t.Errorf("CONTRIBUTING.md: %v", err)
			}
		}
	}
}
