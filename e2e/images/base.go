package images

import (
	"context"
	"fmt"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// ensureBase creates the base image unless it exists.
func (b *builder) ensureBase(ctx context.Context) error {
	image, key := base(b.opts.Release), baseKey(b.opts.Release)
	have, err := b.run.output(ctx, b.buildah.command("inspect", "--type", "image",
		"--format", `{{index .Docker.Config.Labels "`+keyLabel+`"}}`, image.Ref)...)
	if err == nil && have == key {
		return nil
	}
	return prepare.WithMirror(ctx, b.run.progress, func(mirror prepare.Mirror) error {
		return b.makeBase(ctx, image, key, mirror)
	})
}

// makeBase bootstraps Debian in a working container and commits it. This keeps owners, modes
// and set-id bits, and the image does not include files that were removed again.
func (b *builder) makeBase(ctx context.Context, image Image, key string, from prepare.Mirror) (err error) {
	container, err := b.run.output(ctx, b.buildah.command("from", "scratch")...)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// The container must be removed after an interruption too, so this does not use
			// ctx.
			_, _ = b.run.output(context.WithoutCancel(ctx), b.buildah.command("rm", container)...)
		}
	}()
	root, err := b.run.output(ctx, b.buildah.command("mount", container)...)
	if err != nil {
		return err
	}
	return b.run.step(ctx, baseName, fmt.Sprintf("create %s from %s", image.Ref, from.Archive),
		command{argv: prepare.BootstrapCommand(b.opts.Release, root, from)},
		command{argv: prepare.InOwnMounts("chroot", root, "/bin/sh", "-s", b.opts.Release, from.Archive, from.Security), stdin: finishScript},
		command{argv: b.buildah.command("umount", container)},
		command{argv: b.buildah.command("config", "--cmd", "bash", "--label", keyLabel+"="+key, container)},
		command{argv: b.buildah.command("commit", "--format", "docker", "--rm", container, image.Ref)})
}
