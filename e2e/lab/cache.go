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

// cached returns the path of an entry in the cache. If the entry does not exist, produce writes
// it to the given path. If several processes need the same entry, one produces it and the
// others wait.
func (l *Lab) cached(ctx context.Context, kind, key string, produce func(ctx context.Context, path string) error) (string, error) {
	path := l.cachePath(kind, key)
	if exists(path) {
		return path, nil
	}
	lock, err := prepare.Lock(ctx, path+".lock", func() {
		l.progress.Printf("waiting for another process that is creating %s", path)
	})
	if err != nil {
		return "", err
	}
	defer prepare.Unlock(lock)
	if exists(path) {
		return path, nil
	}
	// The lock is held, so remains of an interrupted process can be removed.
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

// cachePath returns the path of an entry, which may not exist.
func (l *Lab) cachePath(kind, key string) string {
	return filepath.Join(l.opts.CacheDir, kind+"-"+key)
}

// prune removes older entries of a kind, except those that a lab uses.
func (l *Lab) prune(kind, newest string) error {
	inUse := map[string]bool{newest: true}
	names, err := List(l.opts)
	if err != nil {
		return err
	}
	for _, name := range names {
		// A lab that cannot be opened is being started or stopped, and uses the newest entry.
		if other, err := Open(name, l.opts); err == nil {
			inUse[other.settings.BinDir], inUse[other.settings.Disk] = true, true
			inUse[string(other.settings.CephRoot)] = true
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

// keepEntries is the number of entries of each kind that stay in the cache.
const keepEntries = 4

// entryName matches entries, but not their locks and partial files.
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

// cacheKey hashes texts and the contents of files, but not the names of files.
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
