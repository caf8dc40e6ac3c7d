package prepare

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// MissingPackages returns the wanted Debian packages that are not installed.
func MissingPackages(ctx context.Context, wanted []string) ([]string, error) {
	args := append([]string{"-W", "-f", "${binary:Package} ${db:Status-Status}\n"}, wanted...)
	// The exit status does not matter: it is 1 if dpkg does not know a package.
	out, err := exec.CommandContext(ctx, "dpkg-query", args...).Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("list installed packages: %w", err)
	}
	return withoutInstalled(wanted, string(out)), ctx.Err()
}

// withoutInstalled returns the wanted packages that dpkg-query does not report
// as installed.
func withoutInstalled(wanted []string, report string) []string {
	installed := map[string]bool{}
	for line := range strings.Lines(report) {
		if name, status, _ := strings.Cut(strings.TrimSpace(line), " "); status == "installed" {
			name, _, _ = strings.Cut(name, ":")
			installed[name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(wanted), func(name string) bool { return installed[name] })
}

// InstallCommands returns the commands that install Debian packages. Run them
// with DEBIAN_FRONTEND=noninteractive.
//
// The lab and its images are prepared at the same time, and apt-get does not wait
// for the lock of another "apt-get update". So they exclude each other by a lock
// of apt's directory.
func InstallCommands(packages []string) [][]string {
	aptGet := []string{"flock", "/var/lib/apt", "apt-get", "-o", "DPkg::Lock::Timeout=600"}
	return [][]string{
		slices.Concat(aptGet, []string{"update"}),
		slices.Concat(aptGet, []string{"install", "-y", "--no-install-recommends"}, packages),
	}
}
