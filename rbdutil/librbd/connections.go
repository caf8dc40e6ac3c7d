package librbd

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

// connections shares one librados connection among all operations on a cluster.
type connections struct {
	timeout time.Duration
	idle    time.Duration
	changed func(n int)
	clients rbdutil.Clients // nil: connections are not recorded

	mu    sync.Mutex
	conns map[connKey]*connection
}

// connection is a librados connection with the number of its users. rados, fsid, client and
// err are written before ready is closed, and never after.
type connection struct {
	key    connKey
	ready  chan struct{}
	rados  *rados.Conn
	fsid   string         // of the cluster
	client rbdutil.Client // if it was recorded
	err    error

	// The rest is guarded by connections.mu.
	users   int
	dropped bool
	unclean bool // Ceph may still have requests of the connection
	expiry  *time.Timer
}

func newConnections(opts Options) *connections {
	if opts.ConnectionsChanged == nil {
		opts.ConnectionsChanged = func(int) {}
	}
	return &connections{
		timeout: max(opts.Timeout, time.Second), idle: opts.IdleTimeout, changed: opts.ConnectionsChanged,
		clients: opts.Clients, conns: map[connKey]*connection{},
	}
}

// acquire returns the connection to the cluster, which it makes if there is none. Concurrent
// callers wait for the same attempt and share its error. Each success requires one release.
// ctx must not be a caller's: the attempt serves others, too.
func (p *connections) acquire(ctx context.Context, c rbdutil.Cluster) (*connection, error) {
	conn, first := p.enter(keyOf(c))
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
func (p *connections) connect(ctx context.Context, c rbdutil.Cluster, made *connection) error {
	conn, err := p.dial(c)
	if err != nil {
		return err
	}
	fsid, err := conn.GetFSID()
	var client rbdutil.Client
	if err != nil {
		err = wrap("read the id of "+c.String(), err, nil)
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

func (p *connections) enter(key connKey) (conn *connection, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn = p.conns[key]
	if conn == nil {
		conn = &connection{key: key, ready: make(chan struct{})}
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
func (p *connections) release(conn *connection) {
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

// drop removes the connection, so that the next acquire makes a new one.
func (p *connections) drop(conn *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(conn)
}

// markBroken drops a connection after a failed operation. It reports whether it was dropped
// before.
func (p *connections) markBroken(conn *connection, unclean bool) (before bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = conn.dropped
	conn.unclean = conn.unclean || unclean
	p.dropLocked(conn)
	return before
}

func (p *connections) dropLocked(conn *connection) {
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
func (p *connections) expire(conn *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn.users == 0 && conn.expiry != nil {
		p.dropLocked(conn)
	}
}

func (p *connections) dropAll() {
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
func (p *connections) dial(c rbdutil.Cluster) (*rados.Conn, error) {
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
