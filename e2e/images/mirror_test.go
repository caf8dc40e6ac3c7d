package images

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHostMirrors(t *testing.T) {
	t.Parallel()
	const osRelease = "ID=debian\nVERSION_CODENAME=bookworm\n"
	for name, test := range map[string]struct {
		files map[string]string
		want  []mirror
	}{
		"public mirror, without configuration": {
			want: []mirror{publicMirror()},
		},
		"one-line entries, with options, comments and third-party archives": {
			files: map[string]string{
				"etc/apt/sources.list": "# deb http://old.example/debian bookworm main\n" +
					"deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ bookworm main contrib # ours\n" +
					"deb-src http://src.example/debian bookworm main\n" +
					"deb http://mirror.example/security bookworm-security main\n",
				"etc/apt/sources.list.d/cloud.list": "deb https://packages.example/apt cloud-sdk-bookworm main\n",
				"etc/apt/sources.list.d/tool.list":  "deb https://tool.example/linux/debian bookworm stable\n",
			},
			want: []mirror{{"http://mirror.example/debian", "http://mirror.example/security"}, publicMirror()},
		},
		"stanzas, one of them disabled": {
			files: map[string]string{
				"etc/apt/sources.list.d/debian.sources": "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\n" +
					"Suites: bookworm\n bookworm-updates\nComponents: main\n\n" +
					"Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n\n" +
					"Types: deb\nURIs: http://nodes.example\nSuites: nodistro\nComponents: main\n",
			},
			want: []mirror{{"http://mirror.example/debian", "http://mirror.example/debian-security"}, publicMirror()},
		},
		"mirror+file URIs of cloud images": {
			files: map[string]string{
				"etc/apt/sources.list.d/debian.sources": "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\n" +
					"Suites: bookworm\nComponents: main\n",
				"etc/apt/mirrors/debian.list": "# mirrors\nhttps://cloud.example/debian priority:1\n",
			},
			want: []mirror{{"https://cloud.example/debian", "https://cloud.example/debian-security"}, publicMirror()},
		},
		"public mirror once, if the host uses it too": {
			files: map[string]string{"etc/apt/sources.list": "deb http://deb.debian.org/debian stable main\n"},
			want:  []mirror{publicMirror()},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{"etc/os-release": osRelease}
			for path, text := range test.files {
				files[path] = text
			}
			if diff := cmp.Diff(test.want, hostMirrors(writeTree(t, files)), cmp.AllowUnexported(mirror{})); diff != "" {
				t.Errorf("mirrors (-want +got):\n%s", diff)
			}
		})
	}
}
