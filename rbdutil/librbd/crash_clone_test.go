//go:build ceph

package librbd_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

const cloneCrashPool = "clone-crashes"

// cloneCrashes is a pool in which processes are killed over clones. Each has a source of
// its own: one that was killed holds its source for half a minute, too.
type cloneCrashes struct{ *crashes }

// cloneAt is the clone over which a process is killed at message n.
func (c *cloneCrashes) cloneAt(verb string, n int) rbdutil.ImageSpec {
	spec, source := c.specAt(verb, n), c.sourceOf(verb, n)
	spec.Source = &rbdutil.Source{ImageRef: source.ImageRef, Precondition: preconditionOf(source)}
	return spec
}

func (c *cloneCrashes) sourceOf(verb string, n int) rbdutil.ImageSpec {
	return c.specAt(verb+"-source", n)
}

// makeSource makes the source of a clone, with data in it.
func (c *cloneCrashes) makeSource(t *testing.T, verb string, n int) {
	t.Helper()
	source := c.sourceOf(verb, n)
	c.ensure(t, source)
	c.ceph.Write(t, source.ImageRef)
}

func (c *cloneCrashes) sumOf(t *testing.T, ref rbdutil.ImageRef) string {
	t.Helper()
	data, err := c.ceph.Try(t.Context(), "rbd", "export", "--no-progress", ref.String(), "-")
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// eventually repeats what a process that was killed may stand in the way of, for the
// half minute in which its images are still held.
func eventually(t *testing.T, what string, do func(context.Context) error) {
	t.Helper()
	if err := retry(2*time.Minute, do); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// retry repeats it until it succeeds or the time is up, and returns the last error.
func retry(patience time.Duration, do func(context.Context) error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := do(ctx)
		cancel()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func (c *cloneCrashes) ensure(t *testing.T, spec rbdutil.ImageSpec) {
	t.Helper()
	eventually(t, "make "+spec.Name, func(ctx context.Context) error {
		img, err := c.images.Ensure(ctx, c.cluster, spec)
		if errors.Is(err, rbdutil.ErrImageExists) {
			c.purge(ctx) // what was begun has the name until it is in the trash for good
		}
		if err == nil && (img.Size != spec.Size || img.Owner() != spec.Owner) {
			t.Errorf("%s is %+v", spec.Name, img)
		}
		return err
	})
}

func (c *cloneCrashes) purge(ctx context.Context) {
	_ = c.emptyTrash(ctx, c.anySpec())
}

// abandon does what the sweeper does about a clone that nobody asks for any more.
func (c *cloneCrashes) abandon(t *testing.T, spec rbdutil.ImageSpec) {
	t.Helper()
	eventually(t, "take away "+spec.Name, func(ctx context.Context) error {
		err := c.images.RemoveOrphan(ctx, c.cluster, spec.ImageRef, spec.Owner)
		switch {
		case errors.Is(err, rbdutil.ErrForeignImage):
			err = nil // it is the beginning of one, which only the snapshot tells
		case errors.Is(err, rbdutil.ErrNotEmpty):
			// It is complete, and would be kept.
			err = c.images.Delete(ctx, c.cluster, spec.ImageRef, preconditionOf(spec), 0)
		}
		if err == nil {
			c.purge(ctx)
			err = c.releaseSnapshots(ctx, spec)
		}
		return err
	})
}

func (c *cloneCrashes) releaseSnapshots(ctx context.Context, spec rbdutil.ImageSpec) error {
	return c.images.RemoveOrphanSnapshots(ctx, c.cluster, spec.Source.ImageRef, spec.Owner, func(clone string) (func(), bool) { return func() {}, clone == spec.Name })
}

// remove deletes a clone, if it is there, and then its source. Whatever there is of both
// goes with them.
func (c *cloneCrashes) remove(t *testing.T, verb string, n int) {
	t.Helper()
	clone, source := c.cloneAt(verb, n), c.sourceOf(verb, n)
	for _, spec := range []rbdutil.ImageSpec{clone, source} {
		eventually(t, "delete "+spec.Name, func(ctx context.Context) error {
			return c.images.Delete(ctx, c.cluster, spec.ImageRef, preconditionOf(spec), 0)
		})
		if spec.Name == clone.Name {
			eventually(t, "release the snapshots of "+source.Name, func(ctx context.Context) error { return c.releaseSnapshots(ctx, clone) })
		}
	}
}

// atATime is how many processes are killed at a time.
const atATime = 8

// someAtATime calls do with 1, 2, … at several places at once until it returns false, and
// returns how often it has returned true before that.
func someAtATime(do func(n int) bool) int {
	var mu sync.Mutex
	var all sync.WaitGroup
	next, last := 1, 0
	for range atATime {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				mu.Lock()
				n := next
				next++
				over := last != 0 && n > last
				mu.Unlock()
				if over {
					return
				}
				if !do(n) {
					mu.Lock()
					if last == 0 || n < last {
						last = n
					}
					mu.Unlock()
					return
				}
			}
		}()
	}
	all.Wait()
	return last - 1
}

// TestClonesKilledAtEveryMessage does with clones what TestKilledAtEveryMessage does. Half
// of those that were being made are finished, and half are given up.
func TestClonesKilledAtEveryMessage(t *testing.T) {
	t.Parallel()
	c := &cloneCrashes{newCrashesIn(t, cloneCrashPool)}
	kill := func(verb string, n int) bool {
		c.makeSource(t, verb, n)
		v := victim{Spec: c.cloneAt(verb, n), Do: makeImage}
		if verb == "deleted" {
			c.ensure(t, v.Spec)
			v.Do = deleteImage
		}
		return c.run(t, n, v)
	}
	making := someAtATime(func(n int) bool { return kill("made", n) })
	deleting := someAtATime(func(n int) bool { return kill("deleted", n) })
	t.Logf("killed at %d messages while making a clone, at %d while deleting one", making, deleting)
	if making < 40 || deleting < 40 {
		t.Errorf("these are too few kills to have met every step")
	}
	someAtATime(func(n int) bool {
		if n > making {
			return false
		}
		spec := c.cloneAt("made", n)
		if n%2 == 0 {
			c.abandon(t, spec)
			return true
		}
		c.ensure(t, spec)
		if c.sumOf(t, spec.ImageRef) != c.sumOf(t, spec.Source.ImageRef) {
			t.Errorf("after a crash at message %d the clone has other data than its source", n)
		}
		return true
	})
	for verb, kills := range map[string]int{"made": making, "deleted": deleting} {
		someAtATime(func(n int) bool {
			if n > kills+atATime { // some were begun before one was not killed any more
				return false
			}
			c.remove(t, verb, n)
			return true
		})
	}
	c.wantNothingLeft(t)
}

// wantNothingLeft empties the trash, and wants the pool without objects.
func (c *cloneCrashes) wantNothingLeft(t *testing.T) {
	t.Helper()
	someAtATime(func(n int) bool { // each snapshot takes the monitors a while
		c.purge(t.Context())
		return n < 3*atATime
	})
	c.awaitPurged(t)
	eventually(t, "have nothing left in the pool", func(context.Context) error {
		// Ceph removes what snapshots have kept a while after them.
		if left := c.objects(t); len(left) > 0 {
			return fmt.Errorf("left are %s", strings.Join(left, " "))
		}
		return nil
	})
}
