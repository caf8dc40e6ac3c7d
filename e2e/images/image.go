package images

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Provisioner is the name of the provisioner's image: the one that the manifests
// in deploy/ ask for.
const Provisioner = "docker.io/rbd-provisioner/rbd-provisioner:dev"

// DefaultRelease is the Debian release that images are built from.
const DefaultRelease = "trixie"

// baseName is the base image's short name. It is built as a part of every other
// image, and becomes an archive only when asked for.
const baseName = "base"

// Image is one image that can be built.
type Image struct {
	// Name is the short name, for files and command lines.
	Name string
	// Ref is the name that pods ask for.
	Ref string
	// Containerfile is the path of the recipe, and Context the folder it may copy
	// from, both relative to the source tree.
	Containerfile, Context string
	// Go says that the recipe compiles Go code and is quicker with caches for it.
	Go bool
}

// Archive is an image in a file.
type Archive struct {
	Image
	Path string
}

// All lists the images that a lab needs.
func All() []Image {
	return []Image{
		{Name: "provisioner", Ref: Provisioner, Containerfile: "Dockerfile", Context: ".", Go: true},
		standIn("pause", "registry.k8s.io/pause:3.9"),
		standIn("nginx", "docker.io/library/nginx:1.9.1"),
		standIn("busybox", "docker.io/library/busybox:1.36"),
	}
}

func standIn(name, ref string) Image {
	folder := filepath.Join("e2e", "images", name)
	return Image{Name: name, Ref: ref, Containerfile: filepath.Join(folder, "Containerfile"), Context: folder}
}

// base is the image that all others are built from.
func base(release string) Image {
	return Image{Name: baseName, Ref: "docker.io/library/debian:" + release + "-slim"}
}

// choose returns the named images, or all that a lab needs when none is named.
func choose(names []string, release string) ([]Image, error) {
	if len(names) == 0 {
		return All(), nil
	}
	known := append(All(), base(release))
	var chosen []Image
	for _, name := range names {
		i := slices.IndexFunc(known, func(image Image) bool { return image.Name == name })
		if i < 0 {
			var all []string
			for _, image := range known {
				all = append(all, image.Name)
			}
			return nil, fmt.Errorf("unknown image %q, known are: %s", name, strings.Join(all, ", "))
		}
		chosen = append(chosen, known[i])
	}
	return chosen, nil
}

// archiveName is the file name of the image made from what key stands for.
func (i Image) archiveName(key string) string {
	return i.Name + "-" + key + ".tar"
}

// isArchive says whether a file name is that of an archive of this image,
// whatever it was made from.
func (i Image) isArchive(file string) bool {
	return regexp.MustCompile("^" + regexp.QuoteMeta(i.Name) + `-[0-9a-f]{12}\.tar$`).MatchString(file)
}
