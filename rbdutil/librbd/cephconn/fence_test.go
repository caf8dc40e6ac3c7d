//go:build ceph

package cephconn

import (
	"context"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest/cephcli"
)

func TestBlocklistAddress(t *testing.T) {
	t.Parallel()
	for addresses, want := range map[string]string{
		"10.0.0.1:0/17":                                 "10.0.0.1:0/17",
		"v2:10.0.0.1:0/17":                              "10.0.0.1:0/17",
		"[v2:10.0.0.1:0/17,v1:10.0.0.1:0/17]":           "10.0.0.1:0/17",
		"[2001:db8::1]:0/17":                            "[2001:db8::1]:0/17",
		"[v2:[2001:db8::1]:0/17,v1:[2001:db8::1]:0/17]": "[2001:db8::1]:0/17",
		"any:[2001:db8::1]:0/17":                        "[2001:db8::1]:0/17",
	} {
		if got := blocklistAddress(addresses); got != want {
			t.Errorf("blocklistAddress(%s) = %s, want %s", addresses, got, want)
		}
	}
}

func TestBlocklistTimeIsLongerThanAnyRequest(t *testing.T) {
	t.Parallel()
	for timeout, want := range map[time.Duration]time.Duration{
		0: 24 * time.Hour, 15 * time.Second: 24 * time.Hour, 3 * time.Hour: 30 * time.Hour,
	} {
		if got := blocklistTime(rbdutil.Client{Timeout: timeout}); got != want {
			t.Errorf("timeout %s: blocklist time %s, want %s", timeout, got, want)
		}
	}
}

// ownClients are the clients of one process.
type ownClients struct {
	stale  []rbdutil.Client
	fenced []rbdutil.Client
}

func (c *ownClients) Register(context.Context, rbdutil.Client) ([]rbdutil.Client, error) {
	return c.stale, nil
}

func (c *ownClients) Fenced(clients []rbdutil.Client) {
	c.fenced, c.stale = append(c.fenced, clients...), nil
}

func (c *ownClients) Refused(_ []rbdutil.Client, reason error) error { return reason }

func (c *ownClients) Closed(client rbdutil.Client, clean bool) {
	if !clean {
		c.stale = append(c.stale, client)
	}
}

// TestAConnectionWithAnUnansweredRequestIsFenced: Ceph may complete an unanswered request after
// the operation was retried on another connection.
func TestAConnectionWithAnUnansweredRequestIsFenced(t *testing.T) {
	t.Parallel()
	const name = "unanswered"
	ceph := cephcli.FromEnv(t)
	ceph.CreatePool(t, name)
	cluster := rbdutil.Cluster{Monitors: ceph.Monitors(t), User: name, Key: ceph.CreateUser(t, name, name)}
	clients := &ownClients{}
	conns := New(Options{
		Timeout: 30 * time.Second, IdleTimeout: time.Minute, Clients: clients,
		Blocklisted: func(err error) { t.Errorf("Blocklisted was called: %v", err) },
	})
	t.Cleanup(conns.Close)
	use := func(result error) (used rbdutil.Client) {
		t.Helper()
		shared, err := conns.Acquire(t.Context(), cluster)
		if err != nil {
			t.Fatal(err)
		}
		err = shared.Run(name, func(conn *rados.Conn, _ *rados.IOContext) error {
			client, err := clientOf(conn, conns.timeout)
			if err != nil {
				t.Error(err)
			}
			used = client
			return result
		})
		conns.Release(shared, err)
		if err != result { //nolint:errorlint // it is to be the same
			t.Fatalf("error %v, want %v", err, result)
		}
		return used
	}
	// Two operations use the connection when the first of them gets no answer. A third one then
	// uses another connection.
	first, err := conns.Acquire(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	if client := use(rbdutil.ErrTimeout); client != first.client {
		t.Fatalf("client %v, want %v", client, first.client)
	}
	second := use(nil)
	if second == first.client || len(clients.stale) > 0 {
		t.Fatalf("client %v, clients to fence: %v", second, clients.stale)
	}
	conns.Release(first, nil)
	third := use(nil)
	if third == second || len(clients.fenced) != 1 || clients.fenced[0] != first.client {
		t.Errorf("client %v after %v, fenced: %v, want %v", third, second, clients.fenced, first.client)
	}
	// An answered request leaves no requests, even if the answer is an error.
	use(rbdutil.ErrAccessDenied)
	if fourth := use(nil); fourth == third || len(clients.fenced) != 1 {
		t.Errorf("client %v after %v, fenced: %v", fourth, third, clients.fenced)
	}
}
