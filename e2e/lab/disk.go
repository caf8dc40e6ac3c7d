package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// diskBytes is the size of a node's disk, a sparse file.
const diskBytes = 32 * gib

// nodeDisk returns a disk with the images imported into containerd, one for each set of images.
// Nodes write to copy-on-write layers above it.
func (l *Lab) nodeDisk(ctx context.Context, images []string) (string, error) {
	images, err := absolute(images)
	if err != nil {
		return "", err
	}
	texts := []string{string(nodeInit), containerdConfig, fmt.Sprint(diskBytes)}
	key, err := cacheKey(texts, images...)
	if err != nil {
		return "", fmt.Errorf("container images: %w", err)
	}
	l.settings.Disk, err = l.cached(ctx, "disk", key, func(ctx context.Context, path string) error {
		what := fmt.Sprintf("creating the nodes' disk (images: %d)", len(images))
		return l.progress.Step(ctx, what, func(ctx context.Context) error {
			if err := makeFileSystem(ctx, path); err != nil {
				return err
			}
			return l.importImages(ctx, path, images)
		})
	})
	if err != nil {
		return "", err
	}
	return l.settings.Disk, l.saveSettings()
}

func absolute(paths []string) ([]string, error) {
	var all []string
	for _, path := range paths {
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		all = append(all, path)
	}
	return all, nil
}

func makeFileSystem(ctx context.Context, path string) error {
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(path, diskBytes); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return nil
}

// importImages boots a User-Mode Linux that imports the images and powers off.
func (l *Lab) importImages(ctx context.Context, disk string, images []string) error {
	const name = "disk-maker"
	dir := l.stateFile("nodes", name)
	for file, data := range map[string][]byte{
		"init":            nodeInit,
		"containerd.toml": []byte(containerdConfig),
		"images":          []byte(strings.Join(append(images, ""), "\n")),
	} {
		if err := writeFile(filepath.Join(dir, file), data, 0o755); err != nil {
			return err
		}
	}
	machine, err := l.startDaemon(ctx, umlSpec(l, name, dir, "ubd0="+disk))
	if err != nil {
		return err
	}
	for machine.Running() {
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), machine.Kill())
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err := machine.killGroup(); err != nil {
		return err
	}
	result, err := os.ReadFile(filepath.Join(dir, "result"))
	if err == nil && strings.TrimSpace(string(result)) != "imported" {
		err = errors.New(strings.TrimSpace(string(result)))
	}
	return machine.withLog(err)
}
