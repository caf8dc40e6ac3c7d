package images

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Provisioner is the name of the provisioner's image, as in the manifests of deploy/.
const Provisioner = "docker.io/rbd-provisioner/rbd-provisioner:dev"

// DefaultRelease is the default Debian release of the images.
const DefaultRelease = "trixie"

// baseName is the base image's short name. It is built with every other image, and becomes an
// archive on request only.
const baseName = "base"

// Image describes one image.
type Image struct {
	// Name is the short name, for files and command lines.
	Name string
	// Ref is the name that pods use.
	Ref string
	// Containerfile is the path of the Dockerfile, and Context the directory of the build
	// context, both relative to the source tree.
	Containerfile, Context string
	// Module is the directory of go.mod, relative to the source tree, if the image compiles Go
	// code. It then benefits from caches.
	Module string
}

// Archive is an image in a docker-archive file.
type Archive struct {
	Image
	Path string
}

// All returns the images that a lab needs.
func All() []Image {
	return []Image{
		{Name: "provisioner", Ref: Provisioner, Containerfile: "Dockerfile", Context: ".", Module: "."},
		standIn("pause", "registry.k8s.io/pause:3.9"),
		standIn("nginx", "docker.io/library/nginx:1.9.1"),
		standIn("busybox", "docker.io/library/busybox:1.36"),
	}
}

// Kind returns the images that only e2e/kind uses: Ceph in a container, and the parts of a node image.
func Kind() []Image {
	folder := filepath.Join("e2e", "kind")
	return []Image{
		{Name: "ceph", Ref: kindRef("ceph"), Containerfile: filepath.Join(folder, "ceph", "Dockerfile"), Context: filepath.Join(folder, "ceph")},
		// The script e2e/kind/node/build fills these two contexts.
		{Name: "kubernetes", Ref: kindRef("kubernetes"), Containerfile: filepath.Join(folder, "node", "kubernetes.Dockerfile"), Context: "_output/kind/kubernetes"},
		{Name: "node", Ref: kindRef("node"), Containerfile: filepath.Join(folder, "node", "Dockerfile"), Context: "_output/kind/node"},
	}
}

func kindRef(name string) string { return "localhost/rbd-provisioner-kind/" + name + ":dev" }

// Upstream returns the images that Kubernetes' own storage suite (e2e/upstream) uses in addition
// to the provisioner and pause. Their versions are those of Kubernetes 1.30.
func Upstream() []Image {
	const registry = "registry.k8s.io/e2e-test-images/"
	agnhost := standIn("agnhost", registry+"agnhost:2.47")
	agnhost.Context = filepath.Join("e2e", "upstream")
	agnhost.Module = agnhost.Context
	busybox := standIn("busybox", registry+"busybox:1.36.1-1")
	busybox.Name = "e2e-busybox"
	// The suite only runs shell scripts in it.
	shell := busybox
	shell.Name, shell.Ref = "e2e-nginx", registry+"nginx:1.14-4"
	return []Image{agnhost, busybox, shell, standIn("dnsutils", registry+"jessie-dnsutils:1.7")}
}

func standIn(name, ref string) Image {
	folder := filepath.Join("e2e", "images", name)
	return Image{Name: name, Ref: ref, Containerfile: filepath.Join(folder, "Containerfile"), Context: folder}
}

// base returns the image that all others are built from.
func base(release string) Image {
	return Image{Name: baseName, Ref: "docker.io/library/debian:" + release + "-slim"}
}

// choose returns the named images, or all if no name is given.
func choose(names []string, release string) ([]Image, error) {
	if len(names) == 0 {
		return All(), nil
	}
	known := slices.Concat(All(), Kind(), Upstream(), []Image{base(release)})
	var chosen []Image
	for _, name := range names {
		i := slices.IndexFunc(known, func(image Image) bool { return image.Name == name })
		if i < 0 {
			var all []string
			for _, image := range known {
				all = append(all, image.Name)
			}
			return nil, fmt.Errorf("unknown image %q, want one of: %s", name, strings.Join(all, ", "))
		}
		chosen = append(chosen, known[i])
	}
	return chosen, nil
}

// archiveName returns the file name of the image's archive with this key.
func (i Image) archiveName(key string) string {
	return i.Name + "-" + key + ".tar"
}

// isArchive reports whether a file name is that of an archive of this image, with any key.
func (i Image) isArchive(file string) bool {
	return regexp.MustCompile("^" + regexp.QuoteMeta(i.Name) + `-[0-9a-f]{12}\.tar$`).MatchString(file)
}
