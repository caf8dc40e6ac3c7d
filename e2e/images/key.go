package images

import (
	_ "embed" // for finish.sh
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// keyFormat is part of every key. Increase it if a change of the build process makes older
// archives invalid.
const keyFormat = "1"

//go:embed base/finish.sh
var finishScript string

// baseKey identifies the inputs of the base image, except the state of the Debian release: see
// Options.CacheDir.
func baseKey(release string) string {
	sum := newHash()
	sum.Text(release)
	sum.Text(finishScript)
	return sum.Key(12)
}

// key identifies all inputs of the image.
func (i Image) key(source, release string) (string, error) {
	if i.Name == baseName {
		return baseKey(release), nil
	}
	files, err := i.inputs(source)
	if err != nil {
		return "", err
	}
	sum := newHash()
	sum.Text(baseKey(release))
	for _, file := range files {
		if err := addFile(sum, source, file); err != nil {
			return "", err
		}
	}
	return sum.Key(12), nil
}

// inputs returns the files that the image is built from, relative to the source tree. These are
// the Dockerfile and the files that the context's .dockerignore admits, or the whole context if
// it has none. Go tests are never included.
func (i Image) inputs(source string) ([]string, error) {
	roots, err := contextRoots(filepath.Join(source, i.Context))
	if err != nil {
		return nil, err
	}
	files := []string{i.Containerfile}
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Join(source, i.Context, root), func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && entry.Name() == "testdata":
				return fs.SkipDir
			case entry.IsDir() || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			file, err := filepath.Rel(source, path)
			files = append(files, file)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list inputs of image %s: %w", i.Name, err)
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// contextRoots returns the parts of a build context, from the exceptions ("!") in its
// .dockerignore. It supports only files whose first pattern excludes everything.
func contextRoots(folder string) ([]string, error) {
	path := filepath.Join(folder, ".dockerignore")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []string{"."}, nil
	}
	if err != nil {
		return nil, err
	}
	var roots []string
	closed := false
	for _, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		root, exception := strings.CutPrefix(line, "!/")
		switch {
		case line == "*":
			closed = true
		case exception && closed:
			roots = append(roots, root)
		}
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf(`%s: want the pattern "*", followed by exceptions such as "!/go.mod"`, path)
	}
	return roots, nil
}

func newHash() prepare.Hash {
	sum := prepare.NewHash()
	sum.Text(keyFormat)
	return sum
}

// addFile hashes a file's name, whether it is executable, and its content.
func addFile(sum prepare.Hash, folder, name string) error {
	path := filepath.Join(folder, name)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	sum.Text(filepath.ToSlash(name))
	sum.Text(fmt.Sprint(info.Mode()&0o111 != 0))
	return sum.File(path)
}
