package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// keyring has the keys for debootstrap's check of the Debian archive's signatures.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// ensureBase creates the base image unless it exists.
func (b *builder) ensureBase(ctx context.Context) error {
	image, key := base(b.opts.Release), baseKey(b.opts.Release)
	have, err := b.run.output(ctx, b.buildah.command("inspect", "--type", "image",
		"--format", `{{index .Docker.Config.Labels "`+keyLabel+`"}}`, image.Ref)...)
	if err == nil && have == key {
		return nil
	}
	var failure error
	for _, mirror := range hostMirrors("/") {
		if failure != nil {
			b.run.progress.Printf("%v", failure)
		}
		if failure = b.makeBase(ctx, image, key, mirror); failure == nil || ctx.Err() != nil {
			return failure
		}
	}
	return failure
}

// makeBase bootstraps Debian in a working container and commits it. This keeps owners, modes
// and set-id bits, and the image does not include files that were removed again.
func (b *builder) makeBase(ctx context.Context, image Image, key string, from mirror) (err error) {
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
	return b.run.step(ctx, baseName, fmt.Sprintf("create %s from %s", image.Ref, from.archive),
		command{argv: bootstrapCommand(b.opts.Release, root, from)},
		command{argv: inOwnMounts("chroot", root, "/bin/sh", "-s", b.opts.Release, from.archive, from.security), stdin: finishScript},
		command{argv: b.buildah.command("umount", container)},
		command{argv: b.buildah.command("config", "--cmd", "bash", "--label", keyLabel+"="+key, container)},
		command{argv: b.buildah.command("commit", "--format", "docker", "--rm", container, image.Ref)})
}

// bootstrapCommand renders the debootstrap command. If debootstrap has no script of the
// release's name, it uses that of sid, which all recent releases share.
func bootstrapCommand(release, root string, from mirror) []string {
	argv := inOwnMounts("debootstrap", "--variant=minbase", "--force-check-gpg", "--keyring="+keyring,
		release, root, from.archive)
	const scripts = "/usr/share/debootstrap/scripts"
	if _, err := os.Stat(filepath.Join(scripts, release)); err != nil {
		argv = append(argv, filepath.Join(scripts, "sid"))
	}
	return argv
}

// inOwnMounts runs a command in a mount namespace of its own, so that its mounts are removed
// when it ends.
func inOwnMounts(argv ...string) []string {
	return slices.Concat([]string{"unshare", "--mount"}, argv)
}
