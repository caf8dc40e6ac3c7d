package images

import (
	"testing"
)

func TestIsDebian(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"NAME=\"Debian GNU/Linux\"\nID=debian\n":    true,
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n": true,
		"ID=fedora\n":                                  false,
		"ID=\"rhel\"\nID_LIKE=\"fedora\"\n":            false,
		"PRETTY_NAME=\"not debian\"\nID=notdebian\n\n": false,
		"": false,
	} {
		if got := isDebian(text); got != want {
			t.Errorf("isDebian(%q) = %t, want %t", text, got, want)
		}
	}
}
