package rbdutil

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"testing"
)

// ended is a context whose owner does not wait.
func ended(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestACopyOutlivesWhoeverHasBegunIt(t *testing.T) {
	t.Parallel()
	var k copies
	release, failed := make(chan struct{}), errors.New("no space")
	made := 0
	makeCopy := func(ctx context.Context) error {
		made++
		<-release
		return cmp.Or(ctx.Err(), failed)
	}
	for range 2 {
		if err := k.do(ended(t), "x", makeCopy); !errors.Is(err, ErrFlattening) {
			t.Errorf("error %v while it runs", err)
		}
	}
	if !k.running("x") || k.running("y") {
		t.Error("it is not known what runs")
	}
	close(release)
	if err := k.do(t.Context(), "x", makeCopy); !errors.Is(err, failed) || made != 1 {
		t.Errorf("error %v of %d copies, want that of the one", err, made)
	}
	// Who has been told why begins anew.
	if err := k.do(t.Context(), "x", func(context.Context) error { return nil }); err != nil || k.running("x") {
		t.Errorf("error %v, running: %t", err, k.running("x"))
	}
}

func TestOnlySoManyCopiesAtATime(t *testing.T) {
	t.Parallel()
	var k copies
	release := make(chan struct{})
	wait := func(context.Context) error {
		<-release
		return nil
	}
	for n := range maxCopies {
		_ = k.do(ended(t), fmt.Sprint(n), wait)
	}
	if err := k.do(t.Context(), "one more", wait); !errors.Is(err, ErrFlattening) || k.running("one more") {
		t.Errorf("error %v, running: %t", err, k.running("one more"))
	}
	close(release)
	for n := range maxCopies {
		if err := k.do(t.Context(), fmt.Sprint(n), wait); err != nil {
			t.Error(err)
		}
	}
	if err := k.do(t.Context(), "one more", wait); err != nil {
		t.Error(err)
	}
}
