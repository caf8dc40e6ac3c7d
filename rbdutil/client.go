package rbdutil

import (
	"context"
	"time"
)

// Client is one connection to a Ceph cluster, as the cluster identifies it.
type Client struct {
	// FSID is the id of the cluster.
	FSID string `json:"fsid"`
	// Address is ADDRESS:0/NONCE, as `ceph osd blocklist add` takes it.
	Address string `json:"address"`
	// Timeout bounds each request that the client sends to Ceph.
	Timeout time.Duration `json:"timeout"`
}

// Clients records the connections to Ceph of the process that may change images, so that the
// next such process can fence them. Ceph refuses all requests of a fenced client.
type Clients interface {
	// Register records a client before its first use. It fails if this process may not change
	// images any more. It returns the clients of the cluster that must be fenced first.
	Register(ctx context.Context, client Client) (stale []Client, err error)
	// Fenced records that Ceph has blocklisted the clients.
	Fenced(clients []Client)
	// Refused records that Ceph does not permit to blocklist the clients, with the reason. It
	// returns ErrNotFenced while their requests may still be running.
	Refused(clients []Client, reason error) error
	// Closed records that a client is not used any more. Unless it was closed cleanly, its
	// requests may still be running, and it must be fenced. Closed must not block.
	Closed(client Client, clean bool)
}
