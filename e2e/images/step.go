package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// heartbeat is how often a step that takes long says that it is still at it.
	heartbeat = 20 * time.Second
	// errorLines is how much of a log an error quotes.
	errorLines = 20
	// beatLength is how much of a log's last line a heartbeat quotes.
	beatLength = 60
	// grace is how long an interrupted command may take to clean up.
	grace = 10 * time.Second
)

// progress reports in whole lines.
type progress struct {
	mu  sync.Mutex
	out io.Writer
}

func (p *progress) printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, "images: %s\n", fmt.Sprintf(format, args...))
}

// beat says every now and then that a step still runs, and what it said last.
// The returned function ends it.
func (p *progress) beat(what, log string, start time.Time) (stop func()) {
	done := make(chan struct{})
	var beating sync.WaitGroup
	beating.Add(1)
	go func() {
		defer beating.Done()
		ticker := time.NewTicker(heartbeat)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				p.printf("%s … %s: %s", what, since(start), shorten(tail(log, 1)))
			}
		}
	}()
	return func() {
		close(done)
		beating.Wait()
	}
}

// runner runs commands whose output goes to log files.
type runner struct {
	progress *progress
	logs     string
	// lock is handed to every command: see lockFile.
	lock *os.File
}

// command describes one command.
type command struct {
	argv  []string
	dir   string
	stdin string
}

// step runs commands one after the other, with their output in one log, and
// reports beginning and end. The error quotes the end of the log.
func (r *runner) step(ctx context.Context, log, what string, commands ...command) error {
	path := filepath.Join(r.logs, log+".log")
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	start := time.Now()
	r.progress.printf("%s …", what)
	stop := r.progress.beat(what, path, start)
	defer stop()
	for _, command := range commands {
		if _, err := fmt.Fprintf(file, "+ %q\n", command.argv); err != nil {
			return err
		}
		err := r.run(ctx, command, file, file)
		if ctx.Err() != nil {
			return fmt.Errorf("%s: interrupted after %s: %w", what, since(start), err)
		}
		if err != nil {
			return fmt.Errorf("%s: %s failed after %s: %w; the end of %s:\n%s",
				what, command.argv[0], since(start), err, path, tail(path, errorLines))
		}
	}
	r.progress.printf("%s: done in %s", what, since(start))
	return nil
}

// output runs a short command and returns what it printed.
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
	// A group of its own: an interruption reaches the command's children too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func since(start time.Time) time.Duration {
	return time.Since(start).Round(100 * time.Millisecond)
}

// tail is the end of a text file, or why it cannot be read.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

func shorten(line string) string {
	if runes := []rune(line); len(runes) > beatLength {
		return string(runes[:beatLength]) + "…"
	}
	return line
}
