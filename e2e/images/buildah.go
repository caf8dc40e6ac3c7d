package images

import (
	"context"
	"path/filepath"
)

// keyLabel is the label of the base image that has its key.
const keyLabel = "rbd-provisioner.lab/key"

// buildah renders command lines for a buildah with its own storage.
type buildah struct {
	// folder has the storage, driver is the storage driver.
	folder, driver string
}

// openBuildah uses the overlay driver if it works. It is much faster than vfs, which works
// everywhere.
func openBuildah(ctx context.Context, r *runner, folder string) buildah {
	b := buildah{folder: folder, driver: "overlay"}
	if _, err := r.output(ctx, b.command("info")...); err != nil && ctx.Err() == nil {
		r.progress.Printf("using the slow storage driver vfs, because overlay failed: %v", err)
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

// buildOptions are the options of one build.
type buildOptions struct {
	image Image
	// source is the directory that the image's paths are relative to.
	source string
	// base is the name of the base image, target the stage to build ("" for the last one), tag
	// the name of the result.
	base, target, tag string
	// args are build arguments, volumes are directories of the host to mount.
	args, volumes []string
}

// build renders a build command that takes its base image from the storage only.
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

// save renders the command that writes an image to an archive.
func (b buildah) save(ref, path string) []string {
	return b.command("push", ref, "docker-archive:"+path+":"+ref)
}

// prune renders the command that removes all layers that no named image uses.
func (b buildah) prune() []string {
	return b.command("rmi", "--prune")
}
