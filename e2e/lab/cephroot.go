package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// Versions of Ceph, by their major number.
const (
	// HostCeph is the version of Debian 12's packages, which are installed on the host.
	HostCeph = 16
	// RootCeph is the version of Debian 13's packages, which are installed in a directory.
	RootCeph = 18
)

// rootRelease is the Debian release that has Ceph in the version RootCeph.
const rootRelease = "trixie"

// rootPackages returns the Debian packages of the directory: Ceph with its commands and libraries,
// and the compiler for the library that the crash tests preload.
func rootPackages() []string {
	return []string{"ceph-mon", "ceph-mgr", "ceph-osd", "ceph-common", "gcc", "libc6-dev"}
}

// checkCephVersion checks a requested version. 0 is any version of the host's packages.
func checkCephVersion(version int) error {
	if !slices.Contains([]int{0, HostCeph, RootCeph}, version) {
		return fmt.Errorf("invalid version of Ceph %d: want %d or %d", version, HostCeph, RootCeph)
	}
	return nil
}

// cephRoot is a directory with a Debian system, or "" for the host's. Programs in it run with its
// /usr on that of the host. All other files are the host's, at the same paths.
type cephRoot string

// cephRoot returns the directory with a version of Ceph. It must have been created before, because
// the lab's network reaches no package mirror.
func (l *Lab) cephRoot(version int) (cephRoot, error) {
	if err := checkCephVersion(version); err != nil || version != RootCeph {
		return "", err
	}
	path := l.cachePath("ceph", rootKey())
	if !exists(path) {
		return "", fmt.Errorf("%s, the directory with Ceph %d, does not exist; run `lab prepare --ceph %d`", path, version, version)
	}
	return cephRoot(path), nil
}

func rootKey() string {
	sum := prepare.NewHash()
	for _, text := range append([]string{rootRelease}, rootPackages()...) {
		sum.Text(text)
	}
	return sum.Key(16)
}

// command returns the command that runs argv with the programs and libraries of the directory.
// It becomes argv's process. Its mounts are in a namespace of their own, which ends with it.
func (r cephRoot) command(argv ...string) []string {
	if r == "" {
		return argv
	}
	const script = `mount --bind "$0/etc/ld.so.cache" /etc/ld.so.cache && mount -o bind,ro "$0/usr" /usr && exec "$@"`
	return slices.Concat(prepare.InOwnMounts("/bin/sh", "-c", script, string(r)), argv)
}

// prepareCephRoot creates the directory with a version of Ceph unless it is in the cache. Remove
// the directory to get updates of the Debian release.
func (l *Lab) prepareCephRoot(ctx context.Context, version int) (cephRoot, error) {
	if version != RootCeph {
		return "", nil
	}
	if err := l.installPackages(ctx, prepare.BootstrapPackages()); err != nil {
		return "", err
	}
	path, err := l.cached(ctx, "ceph", rootKey(), func(ctx context.Context, path string) error {
		what := fmt.Sprintf("installing Ceph %d in a directory (takes minutes the first time)", version)
		return l.progress.Step(ctx, what, func(ctx context.Context) error {
			return prepare.WithMirror(ctx, l.progress, func(from prepare.Mirror) error {
				return l.bootstrapCeph(ctx, path, from)
			})
		})
	})
	return cephRoot(path), err
}

// bootstrapCeph installs the packages in an empty directory.
func (l *Lab) bootstrapCeph(ctx context.Context, root string, from prepare.Mirror) error {
	// Another mirror may have failed after a part.
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	run := func(argv ...string) error {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
		return runLogged(cmd, filepath.Join(l.opts.CacheDir, "ceph-root.log"))
	}
	if err := run(prepare.BootstrapCommand(rootRelease, root, from)...); err != nil {
		return err
	}
	if _, err := forbidDaemons(filepath.Join(root, policyFile)); err != nil {
		return err
	}
	const script = `mount -t proc none "$0/proc" && exec chroot "$0" "$@"`
	for _, argv := range append(prepare.InstallCommands(rootPackages()), []string{"apt-get", "clean"}) {
		if err := run(prepare.InOwnMounts(slices.Concat([]string{"/bin/sh", "-c", script, root}, argv)...)...); err != nil {
			return err
		}
	}
	return nil
}
