package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// Options are the options of a build.
type Options struct {
	// Source is the source tree, the directory with the Dockerfile.
	Source string
	// CacheDir has the storage of images and the caches of the Go compiler. The default is
	// "images" in the lab's cache directory. The base image is created once and then kept:
	// remove the directory to get updates of the Debian release.
	CacheDir string
	// OutDir is the directory of the archives; the default is "archives" in CacheDir. An
	// archive is removed when it is replaced by a newer one.
	OutDir string
	// Release is the Debian release to build from; the default is DefaultRelease.
	Release string
	// Only has the short names of the images to build; the default is All.
	Only []string
	// Log is the writer of the progress lines.
	Log io.Writer
}

// Build updates the archives and returns them in the requested order. Several processes may
// call it at the same time.
func Build(ctx context.Context, opts Options) ([]Archive, error) {
	b, chosen, err := newBuilder(opts)
	if err != nil {
		return nil, err
	}
	defer b.close()
	var archives []Archive
	for _, image := range chosen {
		archive, err := b.archive(ctx, image)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", image.Name, err)
		}
		archives = append(archives, archive)
	}
	return archives, b.prune(ctx)
}

// builder builds one image after the other. It runs no command and needs no privileges until an
// image must be built.
type builder struct {
	opts    Options
	run     *runner
	buildah buildah
	ready   bool
}

func newBuilder(opts Options) (*builder, []Image, error) {
	if opts.Release == "" {
		opts.Release = DefaultRelease
	}
	if opts.Log == nil {
		opts.Log = io.Discard
	}
	if opts.CacheDir == "" {
		opts.CacheDir = filepath.Join(prepare.CacheDir(), "images")
	}
	if opts.OutDir == "" {
		opts.OutDir = filepath.Join(opts.CacheDir, "archives")
	}
	// Commands that run in other directories use these paths.
	for _, dir := range []*string{&opts.Source, &opts.CacheDir, &opts.OutDir} {
		path, err := filepath.Abs(*dir)
		if err != nil {
			return nil, nil, err
		}
		*dir = path
	}
	if !exists(filepath.Join(opts.Source, "Dockerfile")) {
		return nil, nil, fmt.Errorf("%s is not the source tree: Dockerfile not found; use --source", opts.Source)
	}
	chosen, err := choose(opts.Only, opts.Release)
	run := &runner{progress: prepare.NewProgress(opts.Log, "images"), logs: filepath.Join(opts.CacheDir, "logs")}
	return &builder{opts: opts, run: run}, chosen, err
}

// archive returns the image's archive and builds it if it does not exist.
func (b *builder) archive(ctx context.Context, image Image) (Archive, error) {
	key, err := image.key(b.opts.Source, b.opts.Release)
	if err != nil {
		return Archive{}, err
	}
	archive := Archive{Image: image, Path: filepath.Join(b.opts.OutDir, image.archiveName(key))}
	if exists(archive.Path) {
		return archive, nil
	}
	if err := b.prepare(ctx); err != nil {
		return Archive{}, err
	}
	// Another process may have built it before the lock was acquired.
	if exists(archive.Path) {
		return archive, nil
	}
	if err := b.build(ctx, image, key); err != nil {
		return Archive{}, err
	}
	if after, err := image.key(b.opts.Source, b.opts.Release); err != nil || after != key {
		return Archive{}, errors.Join(errors.New("sources changed during the build; build again"), err)
	}
	if err := b.save(ctx, archive); err != nil {
		return Archive{}, err
	}
	return archive, b.removeOld(archive)
}

// prepare acquires the lock and prepares the host, the storage and the base image.
func (b *builder) prepare(ctx context.Context) error {
	if b.ready {
		return nil
	}
	for _, dir := range []string{b.opts.OutDir, b.run.logs, b.goCache("build"), b.goCache("mod"), b.goCache("download")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	path := filepath.Join(b.opts.CacheDir, "lock")
	lock, err := prepare.Lock(ctx, path, func() {
		b.run.progress.Printf("waiting for another process that is building images and holds %s", path)
	})
	if err != nil {
		return err
	}
	b.run.lock = lock
	if err := prepareHost(ctx, b.run); err != nil {
		return err
	}
	b.buildah = openBuildah(ctx, b.run, filepath.Join(b.opts.CacheDir, "storage"))
	// Remove the containers of interrupted and failed builds. This storage has no other users,
	// and it is locked.
	if _, err := b.run.output(ctx, b.buildah.command("rm", "--all")...); err != nil {
		return err
	}
	if err := b.ensureBase(ctx); err != nil {
		return err
	}
	b.ready = true
	return nil
}

// build first builds the compiling stage with caches mounted. Then it builds the whole image
// from the layers of that stage, without the caches, so the image has no trace of them. The
// name of the stage keeps its layers for the next build.
func (b *builder) build(ctx context.Context, image Image, key string) error {
	if image.Name == baseName {
		return nil
	}
	options := buildOptions{image: image, source: b.opts.Source, base: base(b.opts.Release).Ref}
	stage, whole := options, options
	stage.target, stage.tag = "build", "localhost/rbd-provisioner-lab/"+image.Name+"-build"
	whole.tag = image.Ref
	if image.Module != "" {
		settings, err := b.prepareGo(ctx, image.Module)
		if err != nil {
			return err
		}
		args := []string{"VERSION=v0.0.0-dev-" + key}
		if settings.proxy != "" {
			args = append(args, "GOPROXY="+settings.proxy)
		}
		stage.args, whole.args = args, args
		stage.volumes = settings.volumes
	}
	return b.run.step(ctx, image.Name, "build "+image.Ref,
		command{argv: b.buildah.build(stage)},
		command{argv: b.buildah.build(whole)})
}

// save writes the archive under a temporary name, so that every archive is complete.
func (b *builder) save(ctx context.Context, archive Archive) error {
	temp := archive.Path + ".part"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	save := command{argv: b.buildah.save(archive.Ref, temp)}
	if err := b.run.step(ctx, archive.Name+"-save", "save "+archive.Ref, save); err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return os.Rename(temp, archive.Path)
}

// removeOld removes the archives that this one replaces.
func (b *builder) removeOld(archive Archive) error {
	entries, err := os.ReadDir(b.opts.OutDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if path := filepath.Join(b.opts.OutDir, entry.Name()); archive.isArchive(entry.Name()) && path != archive.Path {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// prune removes unused layers if anything was built.
func (b *builder) prune(ctx context.Context) error {
	if !b.ready {
		return nil
	}
	_, err := b.run.output(ctx, b.buildah.prune()...)
	return err
}

// close releases the lock.
func (b *builder) close() {
	if b.run.lock != nil {
		_ = b.run.lock.Close()
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
