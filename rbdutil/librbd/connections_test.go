//go:build ceph

package librbd_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
)

func TestConnectErrors(t *testing.T) {
	ceph, good := newCluster(t)
	other := ceph.CreateUser(t, "contract-other", dataPool)
	change := func(change func(*rbdutil.Cluster)) rbdutil.Cluster {
		c := good
		change(&c)
		return c
	}
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("127.1.%d.%d:6789", i/200, i%200+1))
	}
	cases := map[string]struct {
		cluster rbdutil.Cluster
		want    error
	}{
		"another user's key":  {change(func(c *rbdutil.Cluster) { c.Key = other }), rbdutil.ErrAccessDenied},
		"a user unknown":      {change(func(c *rbdutil.Cluster) { c.User = "nobody" }), rbdutil.ErrAccessDenied},
		"an invalid key":      {change(func(c *rbdutil.Cluster) { c.Key = rbdutil.NewKey("not-base64!") }), rbdutil.ErrInvalidKey},
		"a truncated key":     {change(func(c *rbdutil.Cluster) { c.Key = rbdutil.NewKey(c.Key.Reveal()[:20]) }), rbdutil.ErrInvalidKey},
		"an unresolvable mon": {change(func(c *rbdutil.Cluster) { c.Monitors = []string{"mon.invalid:6789"} }), rbdutil.ErrUnknownMonitor},
		"no mon at the port":  {change(func(c *rbdutil.Cluster) { c.Monitors = []string{"127.0.0.1:1"} }), rbdutil.ErrUnreachable},
		// librados would abort.
		"300 monitors":             {change(func(c *rbdutil.Cluster) { c.Monitors = many }), rbdutil.ErrInvalid},
		"300 monitors in one text": {change(func(c *rbdutil.Cluster) { c.Monitors = []string{strings.Join(many, "; ")} }), rbdutil.ErrInvalid},
		// librados would print the key.
		"a key of unknown type": {change(func(c *rbdutil.Cluster) {
			c.Key = rbdutil.NewKey("CQAAAAAAAAAAABAABwcHBwcHBwcHBwcHBwcHBw==")
		}), rbdutil.ErrInvalidKey},
		"no rights in the pool": {change(func(c *rbdutil.Cluster) { c.User, c.Key = "contract-other", other }),
			rbdutil.ErrAccessDenied},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			store := newStore(t, librbd.Options{Timeout: 3 * time.Second})
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			err := store.Create(ctx, test.cluster, rbdutil.ImageRef{Pool: pool, Name: "x"}, rbdutil.Layout{Features: rbdutil.Layering})
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), test.cluster.Key.Reveal()) {
				t.Error("the error shows the key")
			}
			t.Log(err)
		})
	}
}

func TestAConnectionIsSharedAndClosedWhenIdle(t *testing.T) {
	_, cluster := newCluster(t)
	var mu sync.Mutex
	var counts []int
	gone := make(chan struct{})
	store := newStore(t, librbd.Options{
		IdleTimeout: 300 * time.Millisecond,
		ConnectionsChanged: func(n int) {
			mu.Lock()
			defer mu.Unlock()
			counts = append(counts, n)
			if n == 0 {
				close(gone)
			}
		},
	})
	var all sync.WaitGroup
	for i := range 20 {
		all.Add(1)
		go func() {
			defer all.Done()
			ref := rbdutil.ImageRef{Pool: pool, Name: "shared-" + string(rune('a'+i))}
			if err := store.Create(t.Context(), cluster, ref, rbdutil.Layout{Features: rbdutil.Layering}); err != nil {
				t.Error(err)
			}
		}()
	}
	all.Wait()
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Fatal("the idle connection was not closed")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(counts) != 2 || counts[0] != 1 {
		t.Errorf("numbers of connections %v, want 1 and then 0", counts)
	}
}

func TestAnOperationLocksTheImageAfterItsCallerReturned(t *testing.T) {
	_, cluster := newCluster(t)
	dead := cluster
	dead.Monitors = []string{"127.0.0.1:1"}
	back := make(chan error, 1)
	store := newStore(t, librbd.Options{
		Timeout: 4 * time.Second,
		Observe: func(string) func(error) { return func(err error) { back <- err } },
	})
	ref := rbdutil.ImageRef{Pool: pool, Name: "guarded"}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := store.Get(ctx, dead, ref); !errors.Is(err, rbdutil.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want %v", err, rbdutil.ErrTimeout)
	}
	if err := store.Update(t.Context(), dead, rbdutil.Image{ImageRef: ref}, nil, 0); !errors.Is(err, rbdutil.ErrInProgress) {
		t.Fatalf("error %v, want %v", err, rbdutil.ErrInProgress)
	}
	select {
	case err := <-back:
		if !errors.Is(err, rbdutil.ErrUnreachable) {
			t.Errorf("the operation ended with %v, want %v", err, rbdutil.ErrUnreachable)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the operation on a dead cluster did not end")
	}
	if _, err := store.Get(t.Context(), dead, ref); !errors.Is(err, rbdutil.ErrUnreachable) {
		t.Errorf("error %v, want that of a new attempt: %v", err, rbdutil.ErrUnreachable)
	}
}
