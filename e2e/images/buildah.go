package images

import (
	"context"
	"path/filepath"
)

// keyLabel marks the base image with what it was made from.
const keyLabel = "rbd-provisioner.lab/key"

// buildah renders command lines of a buildah that has its own storage.
type buildah struct {
	// folder holds the storage, driver is how the layers in it are stacked.
	folder, driver string
}

// openBuildah takes the overlay driver where it works: it is far quicker than vfs,
// which works everywhere.
func openBuildah(ctx context.Context, r *runner, folder string) buildah {
	b := buildah{folder: folder, driver: "overlay"}
	if _, err := r.output(ctx, b.command("info")...); err != nil && ctx.Err() == nil {
		r.progress.Printf("storing images the slow way (vfs), overlay does not work here: %v", err)
		b.driver = "vfs"
	}
	return b
}

func (b buildah) command(args ...string) []string {
	storage := filepath.Join(b.folder, b.driver)
	return append([]string{"buildah",
		"--root", filepath.Join(storage, "root"),
		"--runroot", filepath.Join(storage, "run"),
		"--storage-driver", b.driver,
	}, args...)
}

// buildOptions are those of one build.
type buildOptions struct {
	image Image
	// source is the folder that the image's paths are relative to.
	source string
	// base is the name of the base image, target the stage to build ("" is the
	// last one), tag the name of the result.
	base, target, tag string
	// args are build arguments, volumes folders of the host for the build to use.
	args, volumes []string
}

// build renders a build that takes its base image from the storage and nowhere
// else.
func (b buildah) build(o buildOptions) []string {
	args := []string{"build",
		"--isolation", "chroot",
		"--network", "host",
		"--layers",
		"--format", "docker",
		"--pull-never",
		"--file", filepath.Join(o.source, o.image.Containerfile),
		"--tag", o.tag,
		"--build-arg", "BASE_IMAGE=" + o.base,
	}
	for _, arg := range o.args {
		args = append(args, "--build-arg", arg)
	}
	for _, volume := range o.volumes {
		args = append(args, "--volume", volume)
	}
	if o.target != "" {
		args = append(args, "--target", o.target)
	}
	return b.command(append(args, filepath.Join(o.source, o.image.Context))...)
}

// save renders writing an image to an archive.
func (b buildah) save(ref, path string) []string {
	return b.command("push", ref, "docker-archive:"+path+":"+ref)
}

// prune renders the removal of all layers that no named image is built on.
func (b buildah) prune() []string {
	return b.command("rmi", "--prune")
}
