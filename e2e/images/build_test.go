package images

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuildRunsNothingWhenTheArchivesAreThere(t *testing.T) {
	t.Parallel()
	source, out := writeTree(t, sourceTree()), t.TempDir()
	var want []Archive
	for _, name := range []string{"provisioner", "nginx"} {
		chosen, err := choose([]string{name}, DefaultRelease)
		if err != nil {
			t.Fatal(err)
		}
		key, err := chosen[0].key(source, DefaultRelease)
		if err != nil {
			t.Fatal(err)
		}
		archive := Archive{chosen[0], filepath.Join(out, chosen[0].archiveName(key))}
		if err := os.WriteFile(archive.Path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		want = append(want, archive)
	}
	var log bytes.Buffer
	cache := filepath.Join(t.TempDir(), "cache")
	got, err := Build(t.Context(), Options{
		Source: source, CacheDir: cache, OutDir: out, Only: []string{"provisioner", "nginx"}, Log: &log,
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("archives (-want +got):\n%s", diff)
	}
	if log.Len() > 0 || exists(cache) {
		t.Errorf("unexpected activity: %s", log.String())
	}
}

func TestRemoveOldKeepsWhatIsNotReplaced(t *testing.T) {
	t.Parallel()
	out := writeTree(t, map[string]string{
		"nginx-000000000001.tar": "", "nginx-000000000002.tar": "", "pause-000000000001.tar": "", "notes.txt": "",
	})
	b := &builder{opts: Options{OutDir: out}}
	if err := b.removeOld(Archive{Image{Name: "nginx"}, filepath.Join(out, "nginx-000000000002.tar")}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if diff := cmp.Diff([]string{"nginx-000000000002.tar", "notes.txt", "pause-000000000001.tar"}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
