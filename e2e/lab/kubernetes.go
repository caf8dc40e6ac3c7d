package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// KubernetesVersion is the last patch release of the last minor release with the in-tree rbd
// plugin.
const KubernetesVersion = "v1.30.14"

// moduleFile is the path of the module that builds Kubernetes, in the repository.
const moduleFile = "e2e/kubernetes/go.mod"

// buildKubernetes builds the Kubernetes programs unless they are in the cache.
func (l *Lab) buildKubernetes(ctx context.Context) error {
	source, err := l.kubernetesSource()
	if err != nil {
		return err
	}
	args := []string{"build", "-ldflags", versionFlags(KubernetesVersion), "-o"}
	key, err := cacheKey(append(args, runtime.GOARCH), filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum"))
	if err != nil {
		return err
	}
	l.settings.BinDir, err = l.cached(ctx, "kubernetes", key, func(ctx context.Context, path string) error {
		what := "building Kubernetes " + KubernetesVersion + " (takes minutes the first time)"
		return l.progress.Step(ctx, what, func(ctx context.Context) error {
			cmd := exec.CommandContext(ctx, "go", append(args, path+string(filepath.Separator), "tool")...)
			cmd.Dir = source
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly", "PWD="+source)
			if err := os.Mkdir(path, 0o755); err != nil {
				return err
			}
			return runLogged(cmd, filepath.Join(l.opts.CacheDir, "kubernetes-build.log"))
		})
	})
	return err
}

// versionFlags set the version that the programs report. A plain build reports none, and
// clients depend on it.
func versionFlags(version string) string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	flags := []string{"-s", "-w"}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags,
			fmt.Sprintf("-X %s.gitVersion=%s", pkg, version),
			fmt.Sprintf("-X %s.gitMajor=%s", pkg, major),
			fmt.Sprintf("-X %s.gitMinor=%s", pkg, minor))
	}
	return strings.Join(flags, " ")
}

// kubernetesSource finds the module that builds Kubernetes: in Options.Source, upwards from the
// working directory, or beside this source file.
func (l *Lab) kubernetesSource() (string, error) {
	if l.opts.Source != "" {
		return l.opts.Source, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if file := filepath.Join(dir, moduleFile); exists(file) {
			return filepath.Dir(file), nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if _, here, _, ok := runtime.Caller(0); ok {
		if file := filepath.Join(filepath.Dir(here), "..", "kubernetes", "go.mod"); exists(file) {
			return filepath.Dir(file), nil
		}
	}
	return "", errors.New(moduleFile + " not found: run the command inside the repository")
}
