package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// filesWith lists all files of the repository with an extension.
func filesWith(t *testing.T, extension string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "_output", "testdata"}, entry.Name()):
			return filepath.SkipDir
		case filepath.Ext(path) == extension:
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// documents lists all Markdown files of the repository.
func documents(t *testing.T) []string {
	t.Helper()
	files := filesWith(t, ".md")
	if len(files) < 10 {
		t.Fatalf("found only %d documents: %v", len(files), files)
	}
	return files
}

var fence = regexp.MustCompile("(?ms)^```.*?^```$")

// links returns the relative link targets of a document.
func links(text string) []string {
	var targets []string
	text = regexp.MustCompile("`[^`\n]*`").ReplaceAllString(fence.ReplaceAllString(text, ""), "")
	for _, found := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(found[1], "://") && !strings.HasPrefix(found[1], "mailto:") {
			targets = append(targets, found[1])
		}
	}
	return targets
}

// anchors returns the anchors that GitHub makes of the headings.
func anchors(text string) []string {
	var all []string
	for _, found := range regexp.MustCompile(`(?m)^#+ +(.*)$`).FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		anchor := strings.ReplaceAll(strings.ToLower(found[1]), " ", "-")
		all = append(all, regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(anchor, ""))
	}
	return all
}

// codeSpans returns what stands between single backticks, outside of fenced blocks.
func codeSpans(text string) []string {
	var spans []string
	for _, found := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		spans = append(spans, found[1])
	}
	return spans
}

// section returns the text below a heading of the second level, up to the next one.
func section(t *testing.T, file, heading string) string {
	t.Helper()
	_, after, found := strings.Cut(read(t, file), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %q", file, heading)
	}
	text, _, _ := strings.Cut(after, "\n## ")
	return text
}

// tableRows returns the cells of the table in a section, without its header.
func tableRows(t *testing.T, file, heading string) [][]string {
	t.Helper()
	var rows [][]string
	for _, line := range strings.Split(section(t, file, heading), "\n") {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		rows = append(rows, strings.Split(strings.Trim(line, "| "), " | "))
	}
	if len(rows) < 3 {
		t.Fatalf("%s, section %q: there is no table", file, heading)
	}
	return rows[2:]
}

// column returns the code spans in a column of the table in a section.
func column(t *testing.T, file, heading string, n int) []string {
	t.Helper()
	var spans []string
	for _, row := range tableRows(t, file, heading) {
		in := codeSpans(row[n])
		if len(in) == 0 {
			t.Errorf("%s, section %q: no code in %q", file, heading, row[n])
		}
		spans = append(spans, in...)
	}
	return spans
}

// compareLists reports each difference between two sets.
func compareLists(t *testing.T, what string, code, document []string) {
	t.Helper()
	if len(code) == 0 {
		t.Errorf("%s: found none in the code", what)
	}
	for _, item := range code {
		if !slices.Contains(document, item) {
			t.Errorf("%s: %q is in the code, but not in the document", what, item)
		}
	}
	for _, item := range document {
		if !slices.Contains(code, item) {
			t.Errorf("%s: %q is in the document, but not in the code", what, item)
		}
	}
}
