//go:build ceph

package librbd_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

const cloneCrashPool = "clone-crashes"

// cloneCrashes is a pool in which processes are killed over clones of one image.
type cloneCrashes struct {
	*crashes
	source rbdutil.ImageSpec
	sum    string
}

func newCloneCrashes(t *testing.T) *cloneCrashes {
	t.Helper()
	c := &cloneCrashes{crashes: newCrashesIn(t, cloneCrashPool)}
	c.source = c.specAt("source", 0)
	c.ensure(t, c.source)
	c.ceph.Write(t, c.source.ImageRef)
	c.sum = c.sumOf(t, c.source.ImageRef)
	return c
}

func (c *cloneCrashes) sumOf(t *testing.T, ref rbdutil.ImageRef) string {
	t.Helper()
	data, err := c.ceph.Try(t.Context(), "rbd", "export", "--no-progress", ref.String(), "-")
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

func (c *cloneCrashes) cloneAt(verb string, n int) rbdutil.ImageSpec {
	spec := c.specAt(verb, n)
	spec.Source = &rbdutil.Source{ImageRef: c.source.ImageRef, Expect: expectationOf(c.source)}
	return spec
}

// eventually repeats what a process that was killed may stand in the way of, for the
// half minute in which its images are still held.
func eventually(t *testing.T, what string, do func(context.Context) error) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := do(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: %v", what, err)
			return
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
	_, _ = c.images.Purge(ctx, c.cluster, cloneCrashPool, "kubernetes-dynamic-pvc-", c.source.Owner)
}

// abandon does what is done about a clone that nobody asks for any more.
func (c *cloneCrashes) abandon(t *testing.T, spec rbdutil.ImageSpec) {
	t.Helper()
	eventually(t, "take away "+spec.Name, func(ctx context.Context) error {
		if err := c.images.Reclaim(ctx, c.cluster, spec.ImageRef, spec.Owner); err != nil {
			if errors.Is(err, rbdutil.ErrNotOurs) { // it may be the beginning of one, as below
				return c.releaseOrphans(ctx, spec.Name)
			}
			return err
		}
		return nil
	})
}

func (c *cloneCrashes) releaseOrphans(ctx context.Context, names ...string) error {
	return c.images.ReleaseOrphans(ctx, c.cluster, c.source.ImageRef, c.source.Owner,
		func(clone string) bool { return slices.Contains(names, clone) })
}

// someAtATime calls do with 1, 2, … at several places at once until it returns false, and
// returns how often it has returned true before that.
func someAtATime(do func(n int) bool) int {
	const some = 8
	var mu sync.Mutex
	var all sync.WaitGroup
	next, last := 1, 0
	for range some {
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
	c := newCloneCrashes(t)
	making := someAtATime(func(n int) bool { return c.run(t, n, victim{Spec: c.cloneAt("made", n)}) })
	var abandoned []string
	for n := range making {
		if n%2 == 1 {
			abandoned = append(abandoned, c.cloneAt("made", n+1).Name)
		}
	}
	someAtATime(func(n int) bool {
		if n > making {
			return false
		}
		spec := c.cloneAt("made", n)
		if slices.Contains(abandoned, spec.Name) {
			c.abandon(t, spec)
			return true
		}
		c.ensure(t, spec)
		if c.sumOf(t, spec.ImageRef) != c.sum {
			t.Errorf("after a crash at message %d the clone has other data than its source", n)
		}
		return true
	})
	deleting := someAtATime(func(n int) bool {
		spec := c.cloneAt("deleted", n)
		c.ensure(t, spec)
		return c.run(t, n, victim{Spec: spec, Delete: true})
	})
	t.Logf("killed at %d messages while making a clone, at %d while deleting one", making, deleting)
	if making < 40 || deleting < 40 {
		t.Errorf("these are too few kills to have met every step")
	}
	var names []string
	for n := range deleting + 8 {
		spec := c.cloneAt("deleted", n+1)
		names = append(names, spec.Name)
		eventually(t, "delete "+spec.Name, func(ctx context.Context) error {
			return c.images.Delete(ctx, c.cluster, spec.ImageRef, expectationOf(spec))
		})
	}
	for n := range making + 8 {
		spec := c.cloneAt("made", n+1)
		names = append(names, spec.Name)
		if !slices.Contains(abandoned, spec.Name) {
			eventually(t, "delete "+spec.Name, func(ctx context.Context) error {
				return c.images.Delete(ctx, c.cluster, spec.ImageRef, expectationOf(spec))
			})
		}
	}
	// The sweeper's part, and then that of the source.
	eventually(t, "release the snapshots of no clone", func(ctx context.Context) error {
		c.purge(ctx)
		return c.releaseOrphans(ctx, names...)
	})
	c.awaitPurged(t)
	eventually(t, "have no snapshots left", func(ctx context.Context) error {
		if err := c.releaseOrphans(ctx, names...); err != nil {
			return err
		}
		left := c.ceph.Run(t, "rbd", "snap", "ls", "--all", c.source.String())
		if left != "" {
			return errors.New(left)
		}
		return nil
	})
	eventually(t, "delete the source", func(ctx context.Context) error {
		return c.images.Delete(ctx, c.cluster, c.source.ImageRef, expectationOf(c.source))
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
