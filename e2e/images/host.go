package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// hostPackages returns the Debian packages that the host needs.
func hostPackages() []string {
	return append(prepare.BootstrapPackages(), "buildah")
}

// prepareHost checks that the host can build images, and installs missing packages.
func prepareHost(ctx context.Context, r *runner) error {
	if os.Geteuid() != 0 {
		return errors.New("images must be built as root, for debootstrap and buildah's chroot isolation")
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return fmt.Errorf("detect the distribution: %w", err)
	}
	if !isDebian(string(release)) {
		return errors.New("images must be built on Debian or a derivative, according to /etc/os-release this is neither")
	}
	missing, err := prepare.MissingPackages(ctx, hostPackages())
	if err != nil || len(missing) == 0 {
		return err
	}
	var commands []command
	for _, argv := range prepare.InstallCommands(missing) {
		commands = append(commands, command{argv: argv})
	}
	return r.step(ctx, "host-packages", "install "+strings.Join(missing, ", "), commands...)
}

// isDebian reports whether the content of /etc/os-release names Debian or a derivative.
func isDebian(osRelease string) bool {
	return prepare.OSReleaseField(osRelease, "ID") == "debian" ||
		slices.Contains(strings.Fields(prepare.OSReleaseField(osRelease, "ID_LIKE")), "debian")
}
