package images

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeTree writes files, given by their paths, into a new directory.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func sourceTree() map[string]string {
	return map[string]string{
		".dockerignore":                  "# comment\n*\n!/LICENSE\n!/go.mod\n!/cmd\n**/*_test.go\n**/testdata\n",
		"Dockerfile":                     "FROM scratch\n",
		"LICENSE":                        "do what you like\n",
		"README.md":                      "read me\n",
		"go.mod":                         "module example\n",
		"cmd/main.go":                    "package main\n",
		"cmd/main_test.go":               "package main\n",
		"cmd/testdata/a.golden":          "a\n",
		"e2e/images/nginx/nginx.conf":    "events {}\n",
		"e2e/images/nginx/Containerfile": "FROM scratch\n",
	}
}

func TestInputsAreWhatTheContextLetsIn(t *testing.T) {
	t.Parallel()
	source := writeTree(t, sourceTree())
	for name, want := range map[string][]string{
		"provisioner": {"Dockerfile", "LICENSE", "cmd/main.go", "go.mod"},
		"nginx":       {"e2e/images/nginx/Containerfile", "e2e/images/nginx/nginx.conf"},
	} {
		chosen, err := choose([]string{name}, DefaultRelease)
		if err != nil {
			t.Fatal(err)
		}
		got, err := chosen[0].inputs(source)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("inputs of %s (-want +got):\n%s", name, diff)
		}
	}
}

func TestKeyChangesWithWhatTheImageIsMadeFromAndNothingElse(t *testing.T) {
	t.Parallel()
	key := func(files map[string]string, release string) string {
		key, err := All()[0].key(writeTree(t, files), release)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	first := key(sourceTree(), DefaultRelease)
	if again := key(sourceTree(), DefaultRelease); again != first {
		t.Errorf("the same files have keys %s and %s", first, again)
	}
	if other := key(sourceTree(), "forky"); other == first {
		t.Error("another release has the same key")
	}
	for name, changes := range map[string]bool{
		"Dockerfile": true, "go.mod": true, "cmd/main.go": true, "cmd/new.go": true, "LICENSE": true,
		"README.md": false, "cmd/main_test.go": false, "cmd/testdata/a.golden": false,
		"e2e/images/nginx/nginx.conf": false,
	} {
		files := sourceTree()
		files[name] += "changed\n"
		if got := key(files, DefaultRelease) != first; got != changes {
			t.Errorf("%s changes the key: %t, want %t", name, got, changes)
		}
	}
}

func TestKeyOfAMissingFileIsAnError(t *testing.T) {
	t.Parallel()
	files := sourceTree()
	delete(files, "LICENSE")
	if key, err := All()[0].key(writeTree(t, files), DefaultRelease); err == nil {
		t.Errorf("got key %s, want an error", key)
	}
}

func TestDockerignoreWithoutExceptionsIsAnError(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "node_modules\n", "!/cmd\n", "!/cmd\n*\n"} {
		root := writeTree(t, map[string]string{".dockerignore": text})
		if roots, err := contextRoots(root); err == nil {
			t.Errorf("%q: got %q, want an error", text, roots)
		}
	}
}
