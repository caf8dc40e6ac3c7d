package prepare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// heartbeat is the interval at which a running step is reported.
	heartbeat = 20 * time.Second
	// heartbeatLength is the maximum length of a log line in such a report.
	heartbeatLength = 60
)

// Progress writes whole lines, also when several steps run at once.
type Progress struct {
	mu     sync.Mutex
	out    io.Writer
	prefix string
}

// NewProgress returns a Progress that starts each line with prefix and a colon.
func NewProgress(out io.Writer, prefix string) *Progress {
	return &Progress{out: out, prefix: prefix}
}

// Printf writes one line.
func (p *Progress) Printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, "%s: %s\n", p.prefix, fmt.Sprintf(format, args...))
}

// Step runs fn and reports its begin and its end. The error starts with the name
// of the step.
func (p *Progress) Step(ctx context.Context, what string, fn func(context.Context) error) error {
	end := p.Begin(what, "")
	err := fn(ctx)
	elapsed := end()
	switch {
	case errors.Is(err, context.Canceled):
		p.Printf("%s: interrupted after %s", what, elapsed)
	case err != nil:
		p.Printf("%s: failed after %s", what, elapsed)
	default:
		p.Printf("%s: done in %s", what, elapsed)
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Begin reports that a step begins and, at intervals, that it still runs. Each
// such report ends with the last line of the log file, if one is given. The
// caller must call end once; it stops the reports and returns the elapsed time.
func (p *Progress) Begin(what, log string) (end func() time.Duration) {
	start := time.Now()
	elapsed := func() time.Duration { return time.Since(start).Round(100 * time.Millisecond) }
	p.Printf("%s …", what)
	done := make(chan struct{})
	var reports sync.WaitGroup
	reports.Add(1)
	go func() {
		defer reports.Done()
		ticker := time.NewTicker(heartbeat)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				p.Printf("%s … %s%s", what, elapsed(), lastLine(log))
			}
		}
	}()
	return func() time.Duration {
		close(done)
		reports.Wait()
		return elapsed()
	}
}

// lastLine returns ": " and the last line of a log file, shortened.
func lastLine(log string) string {
	if log == "" {
		return ""
	}
	line := []rune(Tail(log, 1))
	if len(line) > heartbeatLength {
		line = append(line[:heartbeatLength], '…')
	}
	return ": " + string(line)
}
