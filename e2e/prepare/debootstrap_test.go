package prepare

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBootstrapCommandChecksSignatures(t *testing.T) {
	t.Parallel()
	// For an unknown release the script of sid is used.
	got := BootstrapCommand("no-such-release", "/root", Mirror{Archive: "http://mirror/debian"})
	want := []string{
		"unshare", "--mount", "debootstrap", "--variant=minbase", "--force-check-gpg", "--keyring=" + keyring,
		"no-such-release", "/root", "http://mirror/debian", "/usr/share/debootstrap/scripts/sid",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
}
