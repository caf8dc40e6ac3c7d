package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// Command returns a command with the lab's environment, to be started by StartInside.
func (l *Lab) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = mergeEnv(os.Environ(), l.Env())
	if path, err := lookPath(name, cmd.Env); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	return cmd
}

// StartInside starts a command in the lab's network. The caller must wait for it.
func (l *Lab) StartInside(cmd *exec.Cmd) error {
	return l.net.do(cmd.Start)
}

// output runs a command in the lab's network and returns its output. The error includes its
// standard error.
func (l *Lab) output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := l.Command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := l.StartInside(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, prepare.LastLines(stderr.Bytes(), 5))
	}
	return stdout.Bytes(), nil
}

// Exec replaces the calling process by a program in the lab's network and environment. With the
// version RootCeph the program, and what it starts, use the commands and libraries of that
// version. Exec returns only on failure.
func (l *Lab) Exec(argv []string, version int) error {
	root, err := l.cephRoot(version)
	if err != nil {
		return err
	}
	argv = root.command(argv...)
	env := mergeEnv(os.Environ(), l.Env())
	path, err := lookPath(argv[0], env)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := l.net.enter(); err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, argv, env))
}

// mergeEnv merges environments; the last value of a name is used.
func mergeEnv(base, more []string) []string {
	cmd := exec.Cmd{Env: append(append([]string{}, base...), more...)}
	return cmd.Environ()
}

// lookPath finds a program as a shell with the environment does.
func lookPath(name string, env []string) (string, error) {
	if strings.ContainsRune(name, '/') {
		return name, nil
	}
	for _, entry := range env {
		if dirs, found := strings.CutPrefix(entry, "PATH="); found {
			for _, dir := range filepath.SplitList(dirs) {
				path := filepath.Join(dir, name)
				if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
					return path, nil
				}
			}
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
