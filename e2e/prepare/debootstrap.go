package prepare

import (
	"os"
	"path/filepath"
	"slices"
)

// keyring has the keys for debootstrap's check of the Debian archive's signatures.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// BootstrapPackages returns the Debian packages that BootstrapCommand needs.
func BootstrapPackages() []string { return []string{"debian-archive-keyring", "debootstrap"} }

// BootstrapCommand returns the command that creates a minimal Debian system in the directory
// root. If debootstrap has no script of the release's name, it uses that of sid, which all recent
// releases share.
func BootstrapCommand(release, root string, from Mirror) []string {
	argv := InOwnMounts("debootstrap", "--variant=minbase", "--force-check-gpg", "--keyring="+keyring,
		release, root, from.Archive)
	const scripts = "/usr/share/debootstrap/scripts"
	if _, err := os.Stat(filepath.Join(scripts, release)); err != nil {
		argv = append(argv, filepath.Join(scripts, "sid"))
	}
	return argv
}

// InOwnMounts runs a command in a mount namespace of its own, so that its mounts are removed
// when it ends.
func InOwnMounts(argv ...string) []string {
	return slices.Concat([]string{"unshare", "--mount"}, argv)
}
