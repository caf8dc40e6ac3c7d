package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// heartbeat is how often a step that takes long says that it is still at it.
const heartbeat = 20 * time.Second

// progress reports steps, of which several may run at once, in whole lines.
type progress struct {
	mu     sync.Mutex
	out    io.Writer
	prefix string
}

func newProgress(out io.Writer, name string) *progress {
	return &progress{out: out, prefix: "lab " + name + ": "}
}

func (p *progress) printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, "%s%s\n", p.prefix, fmt.Sprintf(format, args...))
}

// step runs fn and reports its beginning, its end and, every now and then, that
// it still runs. The error of fn comes back with the name of the step.
func (p *progress) step(ctx context.Context, what string, fn func(context.Context) error) error {
	start := time.Now()
	p.printf("%s …", what)
	done := make(chan struct{})
	var beats sync.WaitGroup
	beats.Add(1)
	go func() {
		defer beats.Done()
		ticker := time.NewTicker(heartbeat)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				p.printf("%s … %s", what, since(start))
			}
		}
	}()
	err := fn(ctx)
	close(done)
	beats.Wait()
	switch {
	case errors.Is(err, context.Canceled):
		p.printf("%s: interrupted after %s", what, since(start))
	case err != nil:
		p.printf("%s: failed after %s", what, since(start))
	default:
		p.printf("%s: done in %s", what, since(start))
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func since(start time.Time) time.Duration {
	return time.Since(start).Round(100 * time.Millisecond)
}
