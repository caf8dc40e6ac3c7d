//go:build ceph

package librbd_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest/cephcli"
)

// recordedClients is an rbdutil.Clients in memory, shared by processes that lead in turn.
type recordedClients struct {
	mu         sync.Mutex
	registered []rbdutil.Client // all, in order
	stale      []rbdutil.Client
	closed     []rbdutil.Client // cleanly
	refusal    error            // what Refused returns
	failure    error            // of Register
}

func (r *recordedClients) Register(_ context.Context, client rbdutil.Client) ([]rbdutil.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failure != nil {
		return nil, r.failure
	}
	r.registered = append(r.registered, client)
	return slices.Clone(r.stale), nil
}

func (r *recordedClients) Fenced(clients []rbdutil.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stale = slices.DeleteFunc(r.stale, func(c rbdutil.Client) bool { return slices.Contains(clients, c) })
}

func (r *recordedClients) Refused([]rbdutil.Client, error) error { return r.refusal }

func (r *recordedClients) Closed(client rbdutil.Client, clean bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if clean {
		r.closed = append(r.closed, client)
	} else {
		r.stale = append(r.stale, client)
	}
}

// takeOver marks all registered clients as those to fence.
func (r *recordedClients) takeOver() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stale = slices.Clone(r.registered)
}

func (r *recordedClients) last(t *testing.T) rbdutil.Client {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.registered) == 0 {
		t.Fatal("no client was registered")
	}
	return r.registered[len(r.registered)-1]
}

func create(t *testing.T, store *librbd.Store, cluster rbdutil.Cluster, name string) error {
	t.Helper()
	return store.Create(t.Context(), cluster, rbdutil.ImageRef{Pool: cluster.User, Name: name}, rbdutil.Layout{Features: rbdutil.Layering})
}

// wantBlocklisted checks whether the client is on Ceph's blocklist, and for how long.
func wantBlocklisted(t *testing.T, ceph cephcli.Admin, client rbdutil.Client, want bool) {
	t.Helper()
	var entries []struct{ Addr, Until string }
	// The command prints the number of entries after the list.
	list := json.NewDecoder(strings.NewReader(ceph.Run(t, "ceph", "osd", "blocklist", "ls", "--format", "json")))
	if err := list.Decode(&entries); err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Addr != client.Address {
			continue
		}
		until, err := time.Parse("2006-01-02T15:04:05.999999-0700", entry.Until)
		if left := time.Until(until); err != nil || left < 23*time.Hour || left > 25*time.Hour {
			t.Errorf("client %s is blocklisted until %s, %v", client.Address, entry.Until, err)
		}
		if !want {
			t.Errorf("client %s is blocklisted", client.Address)
		}
		return
	}
	if want {
		t.Errorf("client %s is not blocklisted: %v", client.Address, entries)
	}
}

func TestAnEarlierLeaderIsFenced(t *testing.T) {
	t.Parallel()
	ceph, cluster := newClusterWith(t, "fenced")
	clients := &recordedClients{}
	blocklisted := make(chan error, 10)
	first := newStore(t, librbd.Options{Clients: clients, Blocklisted: func(err error) { blocklisted <- err }})
	second := newStore(t, librbd.Options{Clients: clients, Blocklisted: func(err error) { t.Errorf("the next leader is blocklisted: %v", err) }})
	if err := create(t, first, cluster, "before"); err != nil {
		t.Fatal(err)
	}
	old := clients.last(t)
	if fsid := ceph.Run(t, "ceph", "fsid"); old.FSID != fsid || old.Timeout <= 0 {
		t.Errorf("client %+v, of cluster %s", old, fsid)
	}
	clients.takeOver()
	if err := create(t, second, cluster, "after"); err != nil {
		t.Fatal(err)
	}
	wantBlocklisted(t, ceph, old, true)
	wantBlocklisted(t, ceph, clients.last(t), false)
	if len(clients.stale) > 0 {
		t.Errorf("clients to fence: %v", clients.stale)
	}
	err := create(t, first, cluster, "late")
	if !errors.Is(err, rbdutil.ErrBlocklisted) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrBlocklisted)
	}
	if got := <-blocklisted; !errors.Is(got, rbdutil.ErrBlocklisted) || !strings.Contains(got.Error(), old.Address) {
		t.Errorf("Blocklisted was called with %v", got)
	}
	if got := ceph.Images(t, "fenced"); !slices.Equal(got, []string{"after", "before"}) {
		t.Errorf("images %q", got)
	}
	if err := create(t, second, cluster, "more"); err != nil {
		t.Errorf("the next leader: %v", err)
	}
	if got := len(clients.registered); got != 2 {
		t.Errorf("%d registrations for 2 connections", got)
	}
}

// TestWithoutTheRightToFenceNothingIsChanged: the user may only read from the monitors.
func TestWithoutTheRightToFenceNothingIsChanged(t *testing.T) {
	t.Parallel()
	ceph, cluster := newClusterWith(t, "unfenced")
	// With these capabilities, the next run could not create the user.
	t.Cleanup(func() { ceph.Run(t, "ceph", "auth", "rm", "client.unfenced") })
	ceph.Run(t, "ceph", "auth", "caps", "client.unfenced", "mon", "allow r", "osd", "profile rbd pool=unfenced")
	clients := &recordedClients{refusal: rbdutil.ErrNotFenced}
	first, second := newStore(t, librbd.Options{Clients: clients}), newStore(t, librbd.Options{Clients: clients})
	if err := create(t, first, cluster, "before"); err != nil {
		t.Fatal(err)
	}
	old := clients.last(t)
	clients.takeOver()
	err := create(t, second, cluster, "early")
	if !errors.Is(err, rbdutil.ErrNotFenced) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrNotFenced)
	}
	if !slices.Contains(clients.closed, clients.last(t)) {
		t.Error("an unused connection is still recorded")
	}
	clients.mu.Lock()
	clients.refusal = nil
	clients.mu.Unlock()
	if err := create(t, second, cluster, "later"); err != nil {
		t.Errorf("after the timeout: %v", err)
	}
	wantBlocklisted(t, ceph, old, false)
	if got := ceph.Images(t, "unfenced"); !slices.Equal(got, []string{"before", "later"}) {
		t.Errorf("images %q", got)
	}
}

func TestAConnectionThatIsNotRecordedIsNotUsed(t *testing.T) {
	t.Parallel()
	ceph, cluster := newClusterWith(t, "unrecorded")
	clients := &recordedClients{failure: context.DeadlineExceeded}
	store := newStore(t, librbd.Options{Clients: clients})
	err := create(t, store, cluster, "x")
	if err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "in the lease: context deadline exceeded") {
		t.Errorf("error %v", err)
	}
	if got := ceph.Images(t, "unrecorded"); len(got) > 0 {
		t.Errorf("images %q", got)
	}
}

func TestAConnectionWithoutRequestsIsNotFenced(t *testing.T) {
	t.Parallel()
	_, cluster := newClusterWith(t, "closed")
	for name, test := range map[string]struct {
		idle time.Duration
		end  func(*librbd.Store)
	}{
		"expired": {time.Millisecond, func(*librbd.Store) {}},
		"closed":  {time.Hour, (*librbd.Store).Close},
	} {
		clients, gone := &recordedClients{}, make(chan struct{})
		store := newStore(t, librbd.Options{Clients: clients, IdleTimeout: test.idle, ConnectionsChanged: func(n int) {
			if n == 0 {
				close(gone)
			}
		}})
		if err := create(t, store, cluster, name); err != nil {
			t.Fatal(err)
		}
		test.end(store)
		<-gone
		deadline := time.After(10 * time.Second)
		for closed := false; !closed; {
			select {
			case <-deadline:
				t.Fatalf("%s: not closed", name)
			default:
				clients.mu.Lock()
				closed = slices.Equal(clients.closed, clients.registered)
				clients.mu.Unlock()
			}
		}
		if len(clients.stale) > 0 {
			t.Errorf("%s: clients to fence: %v", name, clients.stale)
		}
	}
}
