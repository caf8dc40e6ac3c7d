//go:build e2e

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// population is the number of claims that the load keeps, pace the pause between two
	// changes.
	population = 2 * workers
	pace       = 100 * time.Millisecond
)

// load creates and deletes claims continuously, bound or not, until it is stopped.
type load struct {
	*rig
	class   string
	created int
	live    []string
}

// startLoad starts a load. stop may be called repeatedly.
func (r *rig) startLoad(t *testing.T, class string) (stop func()) {
	t.Helper()
	l := &load{rig: r, class: class}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if err := l.change(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("load: %v", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(pace):
			}
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

// change creates a claim or, if there are enough, deletes one.
func (l *load) change(ctx context.Context) error {
	if len(l.live) >= population {
		i := rand.IntN(len(l.live))
		name := l.live[i]
		l.live = append(l.live[:i], l.live[i+1:]...)
		err := l.Client.CoreV1().PersistentVolumeClaims(l.Namespace).Delete(ctx, name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	name := fmt.Sprintf("load-%d", l.created)
	l.created++
	if _, err := l.TryClaim(ctx, name, l.class); err != nil {
		return err
	}
	l.live = append(l.live, name)
	return nil
}
