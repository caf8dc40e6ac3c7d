package images

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuildCommand(t *testing.T) {
	t.Parallel()
	b := buildah{folder: "/cache/storage", driver: "overlay"}
	got := b.build(buildOptions{
		image:   All()[0],
		source:  "/src",
		base:    "docker.io/library/debian:trixie-slim",
		target:  "build",
		tag:     "localhost/stage",
		args:    []string{"VERSION=v1"},
		volumes: []string{"/a:/b:ro"},
	})
	want := []string{
		"buildah", "--root", "/cache/storage/overlay/root", "--runroot", "/cache/storage/overlay/run", "--storage-driver", "overlay",
		"build", "--isolation", "chroot", "--network", "host", "--layers", "--format", "docker", "--pull-never",
		"--file", "/src/Dockerfile", "--tag", "localhost/stage",
		"--build-arg", "BASE_IMAGE=docker.io/library/debian:trixie-slim", "--build-arg", "VERSION=v1",
		"--volume", "/a:/b:ro", "--target", "build", "/src",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
}

func TestSaveCommand(t *testing.T) {
	t.Parallel()
	got := buildah{folder: "/s", driver: "vfs"}.save("registry.k8s.io/pause:3.9", "/out/pause.tar")
	want := []string{
		"buildah", "--root", "/s/vfs/root", "--runroot", "/s/vfs/run", "--storage-driver", "vfs",
		"push", "registry.k8s.io/pause:3.9", "docker-archive:/out/pause.tar:registry.k8s.io/pause:3.9",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
}
