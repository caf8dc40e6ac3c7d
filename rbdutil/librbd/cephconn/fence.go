package cephconn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// minBlocklistTime is the minimum time for which Ceph refuses a fenced client. It is longer
// than a request can be in flight, and than most processes stay frozen.
const minBlocklistTime = 24 * time.Hour

// register records a new connection before its first use, and fences the clients that may
// still change images of its cluster.
func (p *Connections) register(ctx context.Context, c rbdutil.Cluster, conn *rados.Conn) (rbdutil.Client, error) {
	if p.clients == nil {
		return rbdutil.Client{}, nil
	}
	client, err := clientOf(conn, p.timeout)
	if err != nil {
		return client, errno.Wrap("read the client address at "+c.String(), err, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	stale, err := p.clients.Register(ctx, client)
	if err != nil {
		// Not %w: an exceeded deadline here does not mean that Ceph did not answer.
		return client, fmt.Errorf("record client %s of %s in the lease: %s", client.Address, c, err.Error())
	}
	if err := p.fence(conn, stale); err != nil {
		p.clients.Closed(client, true) // it sent no change
		return client, fmt.Errorf("connect to %s: %w", c, err)
	}
	return client, nil
}

// clientOf returns a connection as its cluster identifies it.
func clientOf(conn *rados.Conn, timeout time.Duration) (rbdutil.Client, error) {
	fsid, err := conn.GetFSID()
	if err != nil {
		return rbdutil.Client{}, err
	}
	addresses, err := conn.GetAddrs()
	if err != nil {
		return rbdutil.Client{}, err
	}
	return rbdutil.Client{FSID: fsid, Address: blocklistAddress(addresses), Timeout: timeout}, nil
}

// fence blocklists the clients. When it has returned nil, no request of theirs takes effect
// after a request that is sent later.
func (p *Connections) fence(conn *rados.Conn, clients []rbdutil.Client) error {
	var fenced, refused []rbdutil.Client
	var reason error
	for _, client := range clients {
		err := blocklist(conn, client)
		switch {
		case err == nil:
			fenced = append(fenced, client)
		case errors.Is(err, rbdutil.ErrAccessDenied):
			refused, reason = append(refused, client), err
		default:
			return err
		}
	}
	// The next requests carry the epoch of this map, and an OSD applies the map before it does
	// them. This is needed even if no client was fenced here: another connection of this
	// process may have fenced some just before.
	if err := conn.WaitForLatestOSDMap(); err != nil {
		return errno.Wrap("wait for the OSD map with the blocklist", err, nil)
	}
	if len(fenced) > 0 {
		p.clients.Fenced(fenced)
	}
	if len(refused) > 0 {
		return p.clients.Refused(refused, reason)
	}
	return nil
}

// blocklist is similar to: ceph osd blocklist add ADDRESS SECONDS
func blocklist(conn *rados.Conn, client rbdutil.Client) error {
	what := "fence client " + client.Address
	command, err := json.Marshal(map[string]any{
		"prefix": "osd blocklist", "blocklistop": "add", "addr": client.Address,
		// The monitors require a decimal point.
		"expire": json.RawMessage(strconv.FormatFloat(blocklistTime(client).Seconds(), 'f', 1, 64)),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	_, status, err := conn.MonCommand(command)
	if err != nil && status != "" {
		what += ": " + status
	}
	return errno.Wrap(what, err, nil)
}

func blocklistTime(client rbdutil.Client) time.Duration {
	return max(minBlocklistTime, 10*client.Timeout)
}

// shutdown closes an unused connection. It does so in the background, as librados may wait
// for a cluster that never answers.
func (p *Connections) shutdown(conn *Connection) {
	if conn.rados == nil {
		return
	}
	go conn.rados.Shutdown()
	if p.clients == nil {
		return
	}
	p.clients.Closed(conn.client, !conn.unclean)
	if next := p.conns[conn.key]; conn.unclean && next != nil {
		// It was made before conn could be fenced. The next one will fence conn.
		p.dropLocked(next)
	}
}
