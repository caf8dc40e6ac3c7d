package rbdutil

import (
	"context"
	"time"
)

// Client is one connection to a Ceph cluster, as the cluster knows it.
type Client struct {
	// FSID is the cluster's.
	FSID string `json:"fsid"`
	// Address is ADDRESS:0/NONCE, as `ceph osd blocklist add` takes it.
	Address string `json:"address"`
	// Timeout bounds each request that the client sends to Ceph.
	Timeout time.Duration `json:"timeout"`
}

// Clients records the connections to Ceph of the process that may change images, so that the next
// such process can fence them. A client is fenced when Ceph refuses all that it sends.
type Clients interface {
	// Register records a client before it is used. It fails if this process may not change
	// images any more. It returns the clients of the cluster that must be fenced first.
	Register(ctx context.Context, client Client) (stale []Client, err error)
	// Fenced says that Ceph has blocklisted the clients.
	Fenced(clients []Client)
	// Refused says that Ceph does not allow to blocklist the clients, and why. It returns
	// ErrNotFenced for as long as their requests may still be running.
	Refused(clients []Client, reason error) error
	// Closed says that a client will not be used any more. Unless it was closed cleanly, requests
	// of it may still be running, and it must be fenced. Closed must not wait for anything.
	Closed(client Client, clean bool)
}
