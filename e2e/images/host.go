package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// hostPackages are the Debian packages that the host needs.
func hostPackages() []string {
	return []string{"buildah", "debian-archive-keyring", "debootstrap"}
}

// prepareHost checks that images can be built here at all, and installs what is
// missing.
func prepareHost(ctx context.Context, r *runner) error {
	if os.Geteuid() != 0 {
		return errors.New("building images needs root, for debootstrap and for buildah's chroot isolation")
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return fmt.Errorf("find out the distribution: %w", err)
	}
	if !isDebian(string(release)) {
		return errors.New("building images needs Debian, or a distribution derived from it: /etc/os-release says otherwise")
	}
	missing := missingPackages(hostPackages(), func(name string) string {
		// Of a package that dpkg does not know, dpkg-query says so by its exit code.
		status, _ := r.output(ctx, "dpkg-query", "--show", "--showformat=${db:Status-Status}", name)
		return status
	})
	if len(missing) == 0 {
		return nil
	}
	install := []string{"apt-get", "--option", "DPkg::Lock::Timeout=600", "install", "--yes", "--no-install-recommends"}
	return r.step(ctx, "host-packages", "install "+strings.Join(missing, ", "),
		command{argv: []string{"apt-get", "--option", "DPkg::Lock::Timeout=600", "update"}},
		command{argv: append(install, missing...)})
}

// isDebian reads /etc/os-release.
func isDebian(osRelease string) bool {
	return osReleaseField(osRelease, "ID") == "debian" ||
		slices.Contains(strings.Fields(osReleaseField(osRelease, "ID_LIKE")), "debian")
}

func osReleaseField(osRelease, name string) string {
	for _, line := range strings.Split(osRelease, "\n") {
		if key, value, _ := strings.Cut(line, "="); key == name {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

func missingPackages(names []string, status func(name string) string) []string {
	var missing []string
	for _, name := range names {
		if status(name) != "installed" {
			missing = append(missing, name)
		}
	}
	return missing
}
