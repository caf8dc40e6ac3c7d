package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

const (
	// errorLines is the number of log lines in an error.
	errorLines = 20
	// grace is the time that an interrupted command has to clean up.
	grace = 10 * time.Second
)

// runner runs commands and writes their output to log files.
type runner struct {
	progress *prepare.Progress
	logs     string
	// lock is inherited by every command, so that a build that outlives an interrupted builder
	// still excludes others.
	lock *os.File
}

// command describes one command.
type command struct {
	argv  []string
	dir   string
	stdin string
}

// step runs commands one after the other, logs their output to one file, and reports progress.
// The error includes the end of the log.
func (r *runner) step(ctx context.Context, log, what string, commands ...command) error {
	path := filepath.Join(r.logs, log+".log")
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	end := r.progress.Begin(what, path)
	program, err := r.runAll(ctx, file, commands)
	elapsed := end()
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%s: interrupted after %s: %w", what, elapsed, err)
	case err != nil:
		return fmt.Errorf("%s: %s failed after %s: %w; the end of %s:\n%s",
			what, program, elapsed, err, path, prepare.Tail(path, errorLines))
	}
	r.progress.Printf("%s: done in %s", what, elapsed)
	return nil
}

// runAll runs commands until one fails, and returns the name of that program.
func (r *runner) runAll(ctx context.Context, log io.Writer, commands []command) (program string, err error) {
	for _, command := range commands {
		_, err := fmt.Fprintf(log, "+ %q\n", command.argv)
		if err == nil {
			err = r.run(ctx, command, log, log)
		}
		if err != nil {
			return command.argv[0], err
		}
	}
	return "", nil
}

// output runs a short command and returns its output.
func (r *runner) output(ctx context.Context, argv ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	if err := r.run(ctx, command{argv: argv}, &stdout, &stderr); err != nil {
		return "", fmt.Errorf("%q: %w: %s", argv, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(bytes.TrimSpace(stdout.Bytes())), nil
}

func (r *runner) run(ctx context.Context, c command, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Dir = c.dir
	cmd.Stdin = bytes.NewReader([]byte(c.stdin))
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	if r.lock != nil {
		cmd.ExtraFiles = []*os.File{r.lock}
	}
	// The process group is new, so that an interruption also reaches the command's children.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
