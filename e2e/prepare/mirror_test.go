package prepare

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHostMirrors(t *testing.T) {
	t.Parallel()
	const osRelease = "ID=debian\nVERSION_CODENAME=bookworm\n"
	for name, test := range map[string]struct {
		files map[string]string
		want  []Mirror
	}{
		"public mirror, without configuration": {
			want: []Mirror{publicMirror()},
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
			want: []Mirror{{"http://mirror.example/debian", "http://mirror.example/security"}, publicMirror()},
		},
		"stanzas, one of them disabled": {
			files: map[string]string{
				"etc/apt/sources.list.d/debian.sources": "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\n" +
					"Suites: bookworm\n bookworm-updates\nComponents: main\n\n" +
					"Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n\n" +
					"Types: deb\nURIs: http://nodes.example\nSuites: nodistro\nComponents: main\n",
			},
			want: []Mirror{{"http://mirror.example/debian", "http://mirror.example/debian-security"}, publicMirror()},
		},
		"mirror+file URIs of cloud images": {
			files: map[string]string{
				"etc/apt/sources.list.d/debian.sources": "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\n" +
					"Suites: bookworm\nComponents: main\n",
				"etc/apt/mirrors/debian.list": "# mirrors\nhttps://cloud.example/debian priority:1\n",
			},
			want: []Mirror{{"https://cloud.example/debian", "https://cloud.example/debian-security"}, publicMirror()},
		},
		"public mirror once, if the host uses it too": {
			files: map[string]string{"etc/apt/sources.list": "deb http://deb.debian.org/debian stable main\n"},
			want:  []Mirror{publicMirror()},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{"etc/os-release": osRelease}
			for path, text := range test.files {
				files[path] = text
			}
			root := t.TempDir()
			for path, text := range files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(test.want, hostMirrors(root)); diff != "" {
				t.Errorf("mirrors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWithMirrorTriesTheNextAfterAFailure(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	failure := errors.New("no")
	var tried []Mirror
	err := WithMirror(t.Context(), NewProgress(&out, "x"), func(m Mirror) error {
		tried = append(tried, m)
		return failure
	})
	if !errors.Is(err, failure) || len(tried) == 0 || tried[len(tried)-1] != publicMirror() {
		t.Errorf("tried %v: %v", tried, err)
	}
	if got := strings.Count(out.String(), "x: no\n"); got != len(tried)-1 {
		t.Errorf("%d of %d failures are reported:\n%s", got, len(tried)-1, out.String())
	}
	tried = nil
	err = WithMirror(t.Context(), NewProgress(&out, "x"), func(m Mirror) error {
		tried = append(tried, m)
		return nil
	})
	if err != nil || len(tried) != 1 {
		t.Errorf("tried %v: %v", tried, err)
	}
}
