package rbdutil

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"testing"
)

// doneContext is the context of a caller that does not wait.
func doneContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestFlatteningContinuesWhenItsCallerHasReturned(t *testing.T) {
	t.Parallel()
	var f flattener
	release, failed := make(chan struct{}), errors.New("no space")
	started := 0
	flatten := func(ctx context.Context) error {
		started++
		<-release
		return cmp.Or(ctx.Err(), failed)
	}
	for range 2 {
		if err := f.run(doneContext(t), "x", flatten); !errors.Is(err, ErrFlattening) {
			t.Errorf("error %v while the task runs, want %v", err, ErrFlattening)
		}
	}
	if !f.isRunning("x") || f.isRunning("y") {
		t.Errorf("isRunning reports %t for the running task, %t for another", f.isRunning("x"), f.isRunning("y"))
	}
	close(release)
	if err := f.run(t.Context(), "x", flatten); !errors.Is(err, failed) || started != 1 {
		t.Errorf("error %v after %d tasks, want that of the first", err, started)
	}
	// A caller that has received the error starts a new task.
	if err := f.run(t.Context(), "x", func(context.Context) error { return nil }); err != nil || f.isRunning("x") {
		t.Errorf("error %v, running: %t", err, f.isRunning("x"))
	}
}

func TestFlatteningIsLimited(t *testing.T) {
	t.Parallel()
	var f flattener
	release := make(chan struct{})
	wait := func(context.Context) error {
		<-release
		return nil
	}
	for n := range maxFlattens {
		_ = f.run(doneContext(t), fmt.Sprint(n), wait)
	}
	if err := f.run(t.Context(), "one more", wait); !errors.Is(err, ErrFlattening) || f.isRunning("one more") {
		t.Errorf("error %v, running: %t", err, f.isRunning("one more"))
	}
	close(release)
	for n := range maxFlattens {
		if err := f.run(t.Context(), fmt.Sprint(n), wait); err != nil {
			t.Error(err)
		}
	}
	if err := f.run(t.Context(), "one more", wait); err != nil {
		t.Error(err)
	}
}
