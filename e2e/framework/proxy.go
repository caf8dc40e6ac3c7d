package framework

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a program and a server that it talks to by TCP, and is the
// bad network or the bad server when a test wants one. What it does to its own
// connections disturbs nobody else's.
type Proxy struct {
	target  string
	address string

	mu          sync.Mutex
	listener    net.Listener // nil while connections are refused
	connections map[*connection]struct{}
	delay       time.Duration
	held        chan struct{} // closed when nothing is held back any more; nil: nothing is
	closed      bool
}

// connection is one connection through the proxy.
type connection struct {
	client, server net.Conn
	once           sync.Once
	gone           chan struct{} // closed when it is
}

// NewProxy forwards to the target, HOST:PORT, until the test ends.
func NewProxy(t *testing.T, target string) *Proxy {
	t.Helper()
	// A loopback address that nobody else uses: connections of others cannot take the
	// port while it is given up to refuse connections.
	ip := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254)))
	p := &Proxy{target: target, address: net.JoinHostPort(ip.String(), "0"), connections: map[*connection]struct{}{}}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// Address is where the proxy listens, HOST:PORT.
func (p *Proxy) Address() string { return p.address }

// Cut resets all connections, and tells how many there were. New ones are served.
func (p *Proxy) ResetConnections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resetConnections()
}

// Refuse is a server that is down: connections are reset, and new ones refused.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse()
	p.resetConnections()
}

// Hang is a network that loses everything. Connections stay open, and nothing comes
// through them; after Heal it does, as TCP sends it again.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(chan struct{})
	}
}

// Slow holds back by so long whatever is read from a connection at a time, in both
// directions.
func (p *Proxy) Delay(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// Heal ends what Refuse, Hang and Slow have begun.
func (p *Proxy) Restore(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = 0
	p.release()
	if p.listener == nil {
		if err := p.listen(); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.refuse()
	p.release()
	p.resetConnections()
}

// listen, and all below that say nothing else, are called with the lock held.
func (p *Proxy) listen() error {
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		return fmt.Errorf("proxy to %s: %w", p.target, err)
	}
	p.listener, p.address = listener, listener.Addr().String()
	go p.accept(listener)
	return nil
}

func (p *Proxy) refuse() {
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

func (p *Proxy) release() {
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

func (p *Proxy) resetConnections() int {
	n := len(p.connections)
	for c := range p.connections {
		c.reset()
	}
	clear(p.connections)
	return n
}

// accept runs without the lock, as do those below.
func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			go p.serve(client, listener)
		}
	}
}

func (p *Proxy) serve(client net.Conn, listener net.Listener) {
	c := &connection{client: client, gone: make(chan struct{})}
	var err error
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	var dialer net.Dialer
	if c.server, err = dialer.DialContext(ctx, "tcp", p.target); err != nil || !p.add(c, listener) {
		c.reset()
		return
	}
	var both sync.WaitGroup
	both.Add(2)
	for from, to := range map[net.Conn]net.Conn{c.client: c.server, c.server: c.client} {
		go func() {
			defer both.Done()
			if p.forward(c, from, to) != nil {
				c.reset()
			}
		}()
	}
	both.Wait()
	c.reset()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.connections, c)
}

// add keeps a connection, unless connections were refused or cut off since it was made.
func (p *Proxy) add(c *connection, listener net.Listener) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.listener != listener {
		return false
	}
	p.connections[c] = struct{}{}
	return true
}

// forward copies until one end closes its side, and then closes that of the other.
func (p *Proxy) forward(c *connection, from, to net.Conn) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.pause(c)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return to.(*net.TCPConn).CloseWrite()
		}
		if err != nil {
			return err
		}
	}
}

// pause waits for as long as the proxy is to hold things back.
func (p *Proxy) pause(c *connection) {
	p.mu.Lock()
	held, delay := p.held, p.delay
	p.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-c.gone:
		}
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-c.gone:
		}
	}
}

// reset closes both ends, without waiting for what is under way.
func (c *connection) reset() {
	c.once.Do(func() {
		close(c.gone)
		for _, conn := range []net.Conn{c.client, c.server} {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
				_ = tcp.Close()
			}
		}
	})
}
