package lab

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// cached returns the path of an entry in the cache, which produce writes at the
// path that it is given when it is not there yet. Of several processes that
// want the same entry one makes it and the others wait.
func (l *Lab) cached(ctx context.Context, kind, key string, produce func(ctx context.Context, path string) error) (string, error) {
	path := filepath.Join(l.opts.CacheDir, kind+"-"+key)
	if exists(path) {
		return path, nil
	}
	lock, err := prepare.Lock(ctx, path+".lock", func() {
		l.progress.Printf("another process is making %s: waiting for it", path)
	})
	if err != nil {
		return "", err
	}
	defer prepare.Unlock(lock)
	if exists(path) {
		return path, nil
	}
	// What an interrupted process has left under this name is ours to remove: we
	// hold the lock.
	temp := path + ".part"
	if err := os.RemoveAll(temp); err != nil {
		return "", err
	}
	if err := produce(ctx, temp); err != nil {
		_ = os.RemoveAll(temp)
		return "", err
	}
	if err := os.Rename(temp, path); err != nil {
		return "", err
	}
	return path, l.prune(kind, path)
}

// prune removes older entries of a kind, except those that a lab uses.
func (l *Lab) prune(kind, newest string) error {
	inUse := map[string]bool{newest: true}
	names, err := List(l.opts)
	if err != nil {
		return err
	}
	for _, name := range names {
		// What cannot be opened is being made or torn down, and uses what is new.
		if other, err := Open(name, l.opts); err == nil {
			inUse[other.settings.BinDir], inUse[other.settings.Disk] = true, true
		}
	}
	paths, err := filepath.Glob(filepath.Join(l.opts.CacheDir, kind+"-*"))
	if err != nil {
		return err
	}
	paths = slices.DeleteFunc(paths, func(path string) bool {
		return !entryName.MatchString(filepath.Base(path))
	})
	slices.SortFunc(paths, func(a, b string) int { return modTime(b).Compare(modTime(a)) })
	for i, path := range paths {
		if i >= keepEntries && !inUse[path] {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepEntries is how many entries of each kind stay in the cache.
const keepEntries = 4

// entryName tells entries from the locks and half-made files beside them.
var entryName = regexp.MustCompile(`-[0-9a-f]{16}$`)

func modTime(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// cacheKey hashes texts and the contents of files. Their names do not count.
func cacheKey(texts []string, files ...string) (string, error) {
	sum := prepare.NewHash()
	for _, text := range texts {
		sum.Text(text)
	}
	for _, path := range files {
		if err := sum.File(path); err != nil {
			return "", err
		}
	}
	return sum.Key(16), nil
}
