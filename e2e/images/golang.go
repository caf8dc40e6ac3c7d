package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// goSettings speed up the compilation of Go code in an image.
type goSettings struct {
	// proxy is a GOPROXY; if empty, the Dockerfile's default applies.
	proxy   string
	volumes []string
}

func (b *builder) goCache(name string) string {
	return filepath.Join(b.opts.CacheDir, "go-"+name)
}

// prepareGo returns caches that are kept between builds, and the host's module cache as the
// first proxy. The compiler in the image may have another version than the host's, so it does
// not write to the host's caches.
//
// The host downloads missing modules beforehand. It may have certificates or credentials that
// the network requires and that a build in an image does not have.
func (b *builder) prepareGo(ctx context.Context, module string) (goSettings, error) {
	settings := goSettings{volumes: []string{
		b.goCache("build") + ":/root/.cache/go-build",
		b.goCache("mod") + ":/root/go/pkg/mod",
	}}
	env, err := b.run.output(ctx, "go", "env", "GOPROXY", "GOMODCACHE")
	if err != nil {
		return settings, ctx.Err() // The host has no Go, so the image downloads the modules.
	}
	proxy, modules, _ := strings.Cut(env, "\n")
	if err := b.downloadModules(ctx, module); err != nil {
		return settings, err
	}
	const mounted = "/var/cache/host-modules"
	settings.proxy = "file://" + mounted + "," + proxy
	settings.volumes = append(settings.volumes, filepath.Join(modules, "cache", "download")+":"+mounted+":ro")
	return settings, nil
}

// downloadModules works on copies, because Go may add to go.sum.
func (b *builder) downloadModules(ctx context.Context, module string) error {
	dir := b.goCache("download")
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(b.opts.Source, module, name))
		if err != nil {
			return fmt.Errorf("list Go modules: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return b.run.step(ctx, "go-modules", "download Go modules", command{argv: []string{"go", "mod", "download"}, dir: dir})
}
