package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// goSettings make the compilation of Go code in an image quick.
type goSettings struct {
	// proxy is a GOPROXY; empty leaves it to the recipe.
	proxy   string
	volumes []string
}

func (b *builder) goCache(name string) string {
	return filepath.Join(b.opts.CacheDir, "go-"+name)
}

// prepareGo gives a build caches that outlive it, and the host's modules to take
// from before it asks the host's proxy. The compiler in the image may be another
// one than the host's, so it writes to neither of the host's caches.
//
// The host downloads what it lacks beforehand: it may know certificates, or
// credentials, without which the network gives nothing to a build in an image.
func (b *builder) prepareGo(ctx context.Context) (goSettings, error) {
	settings := goSettings{volumes: []string{
		b.goCache("build") + ":/root/.cache/go-build",
		b.goCache("mod") + ":/root/go/pkg/mod",
	}}
	env, err := b.run.output(ctx, "go", "env", "GOPROXY", "GOMODCACHE")
	if err != nil {
		return settings, ctx.Err() // No Go on the host: the image's has to do it all.
	}
	proxy, modules, _ := strings.Cut(env, "\n")
	if err := b.downloadModules(ctx); err != nil {
		return settings, err
	}
	const mounted = "/var/cache/host-modules"
	settings.proxy = "file://" + mounted + "," + proxy
	settings.volumes = append(settings.volumes, filepath.Join(modules, "cache", "download")+":"+mounted+":ro")
	return settings, nil
}

// downloadModules works on copies: Go may complete go.sum, which is not for us to
// change.
func (b *builder) downloadModules(ctx context.Context) error {
	dir := b.goCache("download")
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(b.opts.Source, name))
		if err != nil {
			return fmt.Errorf("find out which Go modules are needed: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return b.run.step(ctx, "go-modules", "download Go modules", command{argv: []string{"go", "mod", "download"}, dir: dir})
}
