// Package cephconn shares connections to Ceph among the operations of a process. It connects,
// records and fences connections, and closes those that are broken or idle.
package cephconn

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

// connKey is what a connection was made with. A new key or list of monitors leads to a new
// connection; the old one is closed when it is idle.
type connKey struct {
	monitors, user string
	key            rbdutil.Key
}

func keyOf(c rbdutil.Cluster) connKey {
	return connKey{monitors: strings.Join(c.Monitors, ","), user: c.User, key: c.Key}
}

// Options of Connections.
type Options struct {
	// Timeout bounds the connection and each request of librados. The minimum is one second, as
	// Ceph counts in seconds.
	Timeout time.Duration
	// IdleTimeout is how long an unused connection is kept.
	IdleTimeout time.Duration
	// Changed, if set, is called with each new number of connections.
	Changed func(n int)
	// Clients, if set, records each connection before its use, and returns those to fence.
	Clients rbdutil.Clients
	// Blocklisted, if set, is called when Ceph refuses all requests of this process: then
	// another process changes images.
	Blocklisted func(error)
}

// Connections shares one librados connection among all operations on a cluster.
type Connections struct {
	timeout     time.Duration
	idle        time.Duration
	changed     func(n int)
	clients     rbdutil.Clients // nil: connections are not recorded
	blocklisted func(error)

	mu    sync.Mutex
	conns map[connKey]*Connection
}

// Connection is a librados connection with the number of its users. rados, fsid, client and
// err are written before ready is closed, and never after.
type Connection struct {
	key     connKey
	cluster string // for errors
	ready   chan struct{}
	rados   *rados.Conn
	fsid    string         // of the cluster
	client  rbdutil.Client // if it was recorded
	err     error

	// The rest is guarded by Connections.mu.
	users   int
	dropped bool
	unclean bool // Ceph may still have requests of the connection
	expiry  *time.Timer
}

// New returns Connections without any. They are made on demand.
func New(opts Options) *Connections {
	if opts.Changed == nil {
		opts.Changed = func(int) {}
	}
	if opts.Blocklisted == nil {
		opts.Blocklisted = func(error) {}
	}
	return &Connections{
		timeout: max(opts.Timeout, time.Second), idle: opts.IdleTimeout, changed: opts.Changed,
		clients: opts.Clients, blocklisted: opts.Blocklisted, conns: map[connKey]*Connection{},
	}
}

// Acquire returns the connection to the cluster, which it makes if there is none. Concurrent
// callers wait for the same attempt and share its error. Each success requires one Release.
// ctx must not be a caller's: the attempt serves others, too.
func (p *Connections) Acquire(ctx context.Context, c rbdutil.Cluster) (*Connection, error) {
	conn, first := p.enter(c)
	if first {
		conn.err = p.connect(ctx, c, conn)
		close(conn.ready)
	}
	<-conn.ready
	if conn.err != nil {
		p.drop(conn)
		p.release(conn)
		return nil, conn.err
	}
	return conn, nil
}

// connect makes a connection that may be used to change images.
func (p *Connections) connect(ctx context.Context, c rbdutil.Cluster, made *Connection) error {
	conn, err := p.dial(c)
	if err != nil {
		return err
	}
	fsid, err := conn.GetFSID()
	var client rbdutil.Client
	if err != nil {
		err = errno.Wrap("read the id of "+c.String(), err, nil)
	} else {
		client, err = p.register(ctx, c, conn)
	}
	if err != nil {
		go conn.Shutdown()
		return err
	}
	made.rados, made.fsid, made.client = conn, fsid, client
	return nil
}

func (p *Connections) enter(c rbdutil.Cluster) (conn *Connection, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := keyOf(c)
	conn = p.conns[key]
	if conn == nil {
		conn = &Connection{key: key, cluster: c.String(), ready: make(chan struct{})}
		p.conns[key] = conn
		p.changed(len(p.conns))
		first = true
	}
	if conn.expiry != nil {
		conn.expiry.Stop()
		conn.expiry = nil
	}
	conn.users++
	return conn, first
}

// release ends one use. After the last use, it shuts a dropped connection down, and starts
// the idle timer of any other.
func (p *Connections) release(conn *Connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn.users--
	if conn.users > 0 {
		return
	}
	if conn.dropped {
		p.shutdown(conn)
		return
	}
	conn.expiry = time.AfterFunc(p.idle, func() { p.expire(conn) })
}

// drop removes the connection, so that the next Acquire makes a new one.
func (p *Connections) drop(conn *Connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(conn)
}

// markBroken drops a connection after a failed operation. It reports whether it was dropped
// before.
func (p *Connections) markBroken(conn *Connection, unclean bool) (before bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = conn.dropped
	conn.unclean = conn.unclean || unclean
	p.dropLocked(conn)
	return before
}

func (p *Connections) dropLocked(conn *Connection) {
	if conn.dropped {
		return
	}
	conn.dropped = true
	delete(p.conns, conn.key)
	p.changed(len(p.conns))
	if conn.users == 0 {
		p.shutdown(conn)
	}
}

// expire drops a connection that was not used again.
func (p *Connections) expire(conn *Connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn.users == 0 && conn.expiry != nil {
		p.dropLocked(conn)
	}
}

// Close drops all connections. Those in use are closed when their operations end.
func (p *Connections) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		if conn.expiry != nil {
			conn.expiry.Stop()
		}
		p.dropLocked(conn)
	}
}

// dial makes a connection from the Cluster only: it reads no ceph.conf, keyring or
// environment.
func (p *Connections) dial(c rbdutil.Cluster) (*rados.Conn, error) {
	if err := c.Key.Check(); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c, err)
	}
	monitors, err := monHost(c)
	if err != nil {
		return nil, err
	}
	conn, err := rados.NewConnWithUser(c.User)
	if err != nil {
		return nil, fmt.Errorf("prepare connection to %s: %w", c, err)
	}
	seconds := strconv.Itoa(int(math.Ceil(p.timeout.Seconds())))
	for _, option := range []struct{ name, value string }{
		{"mon_host", monitors},
		{"key", c.Key.Reveal()},
		// The errors have what librados would print, and are logged in the log's format.
		{"err_to_stderr", "false"},
		// Without these three, librados waits forever.
		{"client_mount_timeout", seconds},
		{"rados_mon_op_timeout", seconds},
		{"rados_osd_op_timeout", seconds},
	} {
		if err := conn.SetConfigOption(option.name, option.value); err != nil {
			// Not %w of a value: the option may be the key.
			return nil, fmt.Errorf("set option %s for %s: %w", option.name, c, err)
		}
	}
	if err := conn.Connect(); err != nil {
		return nil, connectError(c, err)
	}
	return conn, nil
}

// monHost returns the cluster's mon_host, or an error if there are too many monitors: with
// some hundred, librados aborts the process. All separators are counted, as a
// PersistentVolume may have been written by hand.
func monHost(c rbdutil.Cluster) (string, error) {
	list := strings.Join(c.Monitors, ",")
	n := len(strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(",; \t\r\n", r) }))
	if n > rbdutil.MaxMonitors {
		return "", fmt.Errorf("connect to Ceph as client.%s: %w: %d monitors are given, maximum is %d",
			c.User, rbdutil.ErrInvalid, n, rbdutil.MaxMonitors)
	}
	return list, nil
}
