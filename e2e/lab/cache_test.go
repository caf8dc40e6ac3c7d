package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCacheKeyDependsOnContentsNotOnNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := func(texts []string, files ...string) string {
		key, err := cacheKey(texts, files...)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	base := key([]string{"x", "y"}, file("a", "1"), file("b", "2"))
	if got := key([]string{"x", "y"}, file("c", "1"), file("d", "2")); got != base {
		t.Error("the key depends on file names")
	}
	for what, other := range map[string]string{
		"order":    key([]string{"x", "y"}, file("b", "2"), file("a", "1")),
		"content":  key([]string{"x", "y"}, file("a", "1"), file("e", "3")),
		"split":    key([]string{"x", "y"}, file("f", "12"), file("g", "")),
		"text":     key([]string{"xy"}, file("a", "1"), file("b", "2")),
		"one less": key([]string{"x", "y"}, file("a", "1")),
	} {
		if other == base {
			t.Errorf("%s: the same key", what)
		}
	}
}

func TestCachedMakesAnEntryOnce(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	var made atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			path, err := l.cached(t.Context(), "thing", "0123456789abcdef", func(_ context.Context, path string) error {
				made.Add(1)
				time.Sleep(20 * time.Millisecond)
				return os.WriteFile(path, []byte("whole"), 0o644)
			})
			if data, readErr := os.ReadFile(path); err != nil || readErr != nil || string(data) != "whole" {
				t.Errorf("got %q, %v, %v", data, readErr, err)
			}
		}()
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("created %d times", made.Load())
	}
}

func TestCachedStartsAfreshAfterAFailure(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	failure := errors.New("disk full")
	_, err := l.cached(t.Context(), "thing", "0123456789abcdef", func(_ context.Context, path string) error {
		return errors.Join(os.WriteFile(path, []byte("ha"), 0o644), failure)
	})
	if !errors.Is(err, failure) {
		t.Fatalf("got %v", err)
	}
	// A killed process leaves such a file.
	left := filepath.Join(l.opts.CacheDir, "thing-0123456789abcdef.part")
	if err := os.WriteFile(left, []byte("ha"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = l.cached(t.Context(), "thing", "0123456789abcdef", func(_ context.Context, path string) error {
		if exists(path) {
			t.Error("the remains were not removed")
		}
		return os.WriteFile(path, nil, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPruneKeepsTheNewestAndThoseInUse(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	entry := func(digit string, age time.Duration) string {
		path := filepath.Join(l.opts.CacheDir, "disk-000000000000000"+digit)
		if err := writeFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		return path
	}
	newest := entry("0", 0)
	kept := []string{newest, entry("1", time.Hour), entry("2", 2*time.Hour), entry("3", 3*time.Hour)}
	gone := entry("4", 4*time.Hour)
	used, root := entry("5", 5*time.Hour), entry("6", 6*time.Hour)
	l.settings.Disk, l.settings.CephRoot = used, cephRoot(root)
	if err := l.saveSettings(); err != nil {
		t.Fatal(err)
	}
	if err := l.prune("disk", newest); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(kept, used, root) {
		if !exists(path) {
			t.Errorf("%s was removed", path)
		}
	}
	if exists(gone) {
		t.Errorf("%s was not removed", gone)
	}
}
