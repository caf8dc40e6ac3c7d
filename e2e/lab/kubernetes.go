package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// DefaultKubernetes is the last minor release with the in-tree rbd plugin.
const DefaultKubernetes = "1.30"

// moduleFile is the path of the module that builds DefaultKubernetes, in the repository. Each
// other release has its own module in a folder beside it.
const moduleFile = "e2e/kubernetes/go.mod"

// programs returns the packages of the programs that a lab runs. The module has more, for e2e/kind.
func programs() []string {
	const folder = "k8s.io/kubernetes/cmd/"
	return []string{
		folder + "kube-apiserver", folder + "kube-controller-manager", folder + "kube-scheduler", folder + "kubectl", folder + "kubelet",
	}
}

// buildKubernetes builds the Kubernetes programs unless they are in the cache.
func (l *Lab) buildKubernetes(ctx context.Context) error {
	module, err := l.kubernetesModule()
	if err != nil {
		return err
	}
	version, err := kubernetesVersion(module)
	if err != nil {
		return err
	}
	args := []string{"build", "-ldflags", versionFlags(version), "-o"}
	files := []string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum")}
	if generator := filepath.Join(module, generatorFile); exists(generator) {
		files = append(files, generator)
	}
	key, err := cacheKey(append(args, runtime.GOARCH), files...)
	if err != nil {
		return err
	}
	l.settings.BinDir, err = l.cached(ctx, "kubernetes", key, func(ctx context.Context, path string) error {
		what := "building Kubernetes " + version + " (takes minutes the first time)"
		return l.progress.Step(ctx, what, func(ctx context.Context) error {
			return l.compileKubernetes(ctx, module, slices.Concat(args, []string{path + string(filepath.Separator)}, programs()), path)
		})
	})
	return err
}

// generatorFile is a script in the module of a release whose source is not complete. It writes
// the missing files, and a go.mod that uses them.
const generatorFile = "generate.sh"

// compileKubernetes runs the go command with args, which write to the directory path.
func (l *Lab) compileKubernetes(ctx context.Context, module string, args []string, path string) error {
	if generator := filepath.Join(module, generatorFile); exists(generator) {
		generated, err := os.MkdirTemp("", "rbd-lab-kubernetes-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(generated) }()
		if err := l.runBuild(exec.CommandContext(ctx, generator, generated), module); err != nil {
			return err
		}
		args = slices.Insert(args, 1, "-modfile="+filepath.Join(generated, "go.mod"))
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return l.runBuild(exec.CommandContext(ctx, "go", args...), module)
}

// runBuild runs a command of the build in the module's directory.
func (l *Lab) runBuild(cmd *exec.Cmd, module string) error {
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly", "PWD="+module)
	return runLogged(cmd, filepath.Join(l.opts.CacheDir, "kubernetes-build.log"))
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

// kubernetesModule returns the directory of the module that builds the lab's Kubernetes.
func (l *Lab) kubernetesModule() (string, error) {
	source, err := l.kubernetesSource()
	if err != nil || l.opts.Kubernetes == DefaultKubernetes {
		return source, err
	}
	modules, err := filepath.Glob(filepath.Join(source, "1.*", "go.mod"))
	if err != nil {
		return "", err
	}
	releases := []string{DefaultKubernetes}
	for _, module := range modules {
		dir := filepath.Dir(module)
		if filepath.Base(dir) == l.opts.Kubernetes {
			return dir, nil
		}
		releases = append(releases, filepath.Base(dir))
	}
	return "", fmt.Errorf("no module builds Kubernetes %q; there are modules for %s", l.opts.Kubernetes, strings.Join(releases, ", "))
}

// requirement matches the line of a go.mod that selects the version of Kubernetes.
var requirement = regexp.MustCompile(`(?m)^\s*(?:require )?k8s\.io/kubernetes (v\S+)`)

// kubernetesVersion returns the version of Kubernetes that a module builds.
func kubernetesVersion(module string) (string, error) {
	file := filepath.Join(module, "go.mod")
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	match := requirement.FindSubmatch(data)
	if match == nil {
		return "", fmt.Errorf("%s does not require k8s.io/kubernetes", file)
	}
	return string(match[1]), nil
}

// kubernetesSource finds the module of DefaultKubernetes: in Options.Source, upwards from the
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
