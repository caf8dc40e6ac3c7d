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

// Proxy is a TCP proxy between a program and a server. A test uses it to simulate a failing
// network or server, for the connections through it only.
type Proxy struct {
	target  string
	address string

	mu          sync.Mutex
	listener    net.Listener // nil while connections are refused
	connections map[*connection]struct{}
	delay       time.Duration
	held        chan struct{} // closed when the data is released; nil if it is not held back
	closed      bool
}

// connection is one connection through the proxy.
type connection struct {
	client, server net.Conn
	once           sync.Once
	gone           chan struct{} // closed at the end of the connection
}

// NewProxy forwards connections to the target, HOST:PORT, until the test ends.
func NewProxy(t *testing.T, target string) *Proxy {
	t.Helper()
	p := &Proxy{target: target, address: randomLoopback(), connections: map[*connection]struct{}{}}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// randomLoopback returns a random loopback address with port 0. No other program takes a port
// of it while nothing listens there.
func randomLoopback() string {
	ip := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254)))
	return net.JoinHostPort(ip.String(), "0")
}

// Address returns the proxy's address, HOST:PORT.
func (p *Proxy) Address() string { return p.address }

// ResetConnections resets all connections and returns their number. New connections work.
func (p *Proxy) ResetConnections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resetConnections()
}

// Refuse simulates a stopped server: connections are reset, and new ones refused.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse()
	p.resetConnections()
}

// Hang simulates a network that drops everything. Connections stay open without traffic. After
// Restore the data arrives, like data that TCP retransmits.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(chan struct{})
	}
}

// Delay delays each chunk of data in both directions.
func (p *Proxy) Delay(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// Restore ends the effects of Refuse, Hang and Delay.
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

// The lock must be held for listen and the functions below, unless noted otherwise.
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

// accept and the functions below run without the lock.
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

// add registers a connection, unless connections were refused since it was accepted.
func (p *Proxy) add(c *connection, listener net.Listener) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.listener != listener {
		return false
	}
	p.connections[c] = struct{}{}
	return true
}

// forward copies data until one side closes its end, and then closes the end of the other.
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

// pause waits for as long as the proxy holds data back.
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

// reset closes both ends without sending the remaining data.
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
