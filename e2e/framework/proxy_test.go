package framework

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// echo starts a server that returns the data that it receives.
func echo(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

// caller is a client connection through a proxy.
type caller struct {
	net.Conn
	lines *bufio.Reader
}

func call(t *testing.T, p *Proxy) *caller {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &caller{conn, bufio.NewReader(conn)}
}

func (c *caller) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text+"\n"); err != nil {
		t.Fatal(err)
	}
}

// receive requires a line within the timeout.
func (c *caller) receive(t *testing.T, want string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(Timeout))
	if got, err := c.lines.ReadString('\n'); err != nil || got != want+"\n" {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// receiveReset requires that the connection is reset.
func (c *caller) receiveReset(t *testing.T) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(Timeout))
	if got, err := c.lines.ReadString('\n'); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q, %v, want a reset", got, err)
	}
}

func TestProxyForwards(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := call(t, p)
	c.send(t, "one")
	c.receive(t, "one")
	// The end of one side reaches the other, after all that was sent before it.
	c.send(t, "two")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.receive(t, "two")
	if rest, err := io.ReadAll(c.lines); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

func TestProxyResetsConnections(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := call(t, p)
	c.send(t, "one")
	c.receive(t, "one")
	if n := p.ResetConnections(); n != 1 {
		t.Errorf("reset %d connections, want 1", n)
	}
	c.receiveReset(t)
	c = call(t, p)
	c.send(t, "two")
	c.receive(t, "two")
}

func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := call(t, p)
	c.send(t, "one")
	c.receive(t, "one")
	p.Refuse()
	c.receiveReset(t)
	if _, err := net.Dial("tcp", p.Address()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want connection refused", err)
	}
	p.Restore(t)
	c = call(t, p)
	c.send(t, "two")
	c.receive(t, "two")
}

func TestProxyHangs(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := call(t, p)
	c.send(t, "one")
	c.receive(t, "one")
	p.Hang()
	c.send(t, "two")
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if got, err := c.lines.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v, want nothing", got, err)
	}
	late := call(t, p)
	late.send(t, "three")
	p.Restore(t)
	c.receive(t, "two")
	late.receive(t, "three")
	// A hanging connection can be reset too.
	p.Hang()
	c.send(t, "four")
	p.ResetConnections()
	c.receiveReset(t)
}

func TestProxyIsSlow(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := call(t, p)
	const delay = 100 * time.Millisecond
	p.Delay(delay)
	start := time.Now()
	c.send(t, "one")
	c.receive(t, "one")
	if took := time.Since(start); took < 2*delay {
		t.Errorf("round trip took %s, want at least %s", took, 2*delay)
	}
}

func TestProxyWithoutServer(t *testing.T) {
	t.Parallel()
	conn, err := net.Dial("tcp", NewProxy(t, "127.0.0.1:1").Address())
	if err == nil {
		defer func() { _ = conn.Close() }()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}
