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

// cloneCrashes is a pool in which processes are killed that create or delete clones. Each has
// its own source, as a killed process remains a watcher of its source for half a minute.
type cloneCrashes struct{ *crashes }

// cloneAt is the clone of the process that is killed at message n.
func (c *cloneCrashes) cloneAt(verb string, n int) rbdutil.ImageSpec {
	spec, source := c.specAt(verb, n), c.sourceOf(verb, n)
	spec.Source = &rbdutil.Source{ImageRef: source.ImageRef, Precondition: preconditionOf(source)}
	return spec
}

func (c *cloneCrashes) sourceOf(verb string, n int) rbdutil.ImageSpec {
	return c.specAt(verb+"-source", n)
}

// makeSource creates the source of a clone, with data.
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

// eventually retries an operation that a killed process may prevent: it remains a watcher for
// half a minute.
func eventually(t *testing.T, what string, do func(context.Context) error) {
	t.Helper()
	if err := retry(2*time.Minute, do); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// retry repeats an operation until it succeeds or the time has passed, and returns the last
// error.
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
			c.purge(ctx) // a partial clone has the name until it is removed from the trash
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

// abandon does what the garbage collection does with a clone that no claim requests.
func (c *cloneCrashes) abandon(t *testing.T, spec rbdutil.ImageSpec) {
	t.Helper()
	eventually(t, "take away "+spec.Name, func(ctx context.Context) error {
		err := c.images.RemoveOrphan(ctx, c.cluster, spec.ImageRef, spec.Owner)
		switch {
		case errors.Is(err, rbdutil.ErrForeignImage):
			err = nil // a partial clone, identified by the snapshot only
		case errors.Is(err, rbdutil.ErrNotEmpty):
			// A complete clone is kept.
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

// remove deletes a clone, if it exists, and its source, with all objects of both.
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

// atATime is how many processes run at the same time.
const atATime = 8

// someAtATime calls do with 1, 2, … concurrently until it returns false. It returns how often
// do returned true before.
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

// TestClonesKilledAtEveryMessage is TestKilledAtEveryMessage for clones. Half of the creations
// are completed, and half are abandoned.
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
	t.Logf("killed at %d messages of a creation, at %d of a deletion", making, deleting)
	if making < 40 || deleting < 40 {
		t.Errorf("too few kills to interrupt each step")
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
			if n > kills+atATime { // some started before the first one that was not killed
				return false
			}
			c.remove(t, verb, n)
			return true
		})
	}
	c.wantEmpty(t)
}

// wantEmpty empties the trash, and checks that the pool has no objects.
func (c *cloneCrashes) wantEmpty(t *testing.T) {
	t.Helper()
	someAtATime(func(n int) bool { // each snapshot takes the monitors up to a second
		c.purge(t.Context())
		return n < 3*atATime
	})
	c.awaitPurged(t)
	eventually(t, "wait until the pool is empty", func(context.Context) error {
		// Ceph removes the objects of snapshots some time after the snapshots.
		if left := c.objects(t); len(left) > 0 {
			return fmt.Errorf("objects %s remain", strings.Join(left, " "))
		}
		return nil
	})
}
