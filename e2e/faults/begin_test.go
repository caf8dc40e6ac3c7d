//go:build e2e

package faults

import (
	"context"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/lab"
)

// Each of these functions returns the begin function of a fault of the first Ceph's daemons.

func pause(name string) func(*testing.T, *rig) func() {
	return func(t *testing.T, r *rig) func() {
		d := daemon(t, r.ceph, name)
		do(t, d.Pause)
		return func() { do(t, d.Resume) }
	}
}

func kill(name string) func(*testing.T, *rig) func() {
	return func(t *testing.T, r *rig) func() {
		d := daemon(t, r.ceph, name)
		do(t, d.Kill)
		return func() { do(t, func() error { return d.Start(context.Background()) }) }
	}
}

func dropTraffic(name string) func(*testing.T, *rig) func() {
	return func(t *testing.T, r *rig) func() {
		d := daemon(t, r.ceph, name)
		do(t, d.DropTraffic)
		return func() { do(t, d.RestoreTraffic) }
	}
}

// pauseRepeatedly lets a daemon run for only a quarter of the time.
func pauseRepeatedly(name string) func(*testing.T, *rig) func() {
	return func(t *testing.T, r *rig) func() {
		d := daemon(t, r.ceph, name)
		return repeat(t, func() error {
			if err := d.Pause(); err != nil {
				return err
			}
			time.Sleep(150 * time.Millisecond)
			return d.Resume()
		}, 50*time.Millisecond)
	}
}

// reset resets the connections of daemons repeatedly.
func reset(names ...string) func(*testing.T, *rig) func() {
	return func(t *testing.T, r *rig) func() {
		var daemons []*lab.Daemon
		for _, name := range names {
			daemons = append(daemons, daemon(t, r.ceph, name))
		}
		return repeat(t, func() error {
			for _, d := range daemons {
				if _, err := d.Reset(); err != nil {
					return err
				}
			}
			return nil
		}, 300*time.Millisecond)
	}
}

// repeat calls fn until end is called.
func repeat(t *testing.T, fn func() error, pause time.Duration) (end func()) {
	t.Helper()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if err := fn(); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(pause):
			}
		}
	}()
	return func() {
		close(stop)
		<-ended
	}
}
