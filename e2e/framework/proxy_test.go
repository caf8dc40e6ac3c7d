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

// echo is a server that sends back what it gets.
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

// caller is a connection through a proxy.
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

func (c *caller) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text+"\n"); err != nil {
		t.Fatal(err)
	}
}

// hear wants a line back before the time is up.
func (c *caller) hear(t *testing.T, want string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(Timeout))
	if got, err := c.lines.ReadString('\n'); err != nil || got != want+"\n" {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// hearReset wants that the connection is broken.
func (c *caller) hearReset(t *testing.T) {
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
	c.say(t, "one")
	c.hear(t, "one")
	// The end of one side reaches the other, after all that was sent before it.
	c.say(t, "two")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.hear(t, "two")
	if rest, err := io.ReadAll(c.lines); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

func TestProxyCuts(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := call(t, p)
	c.say(t, "one")
	c.hear(t, "one")
	if n := p.ResetConnections(); n != 1 {
		t.Errorf("cut %d connections", n)
	}
	c.hearReset(t)
	c = call(t, p)
	c.say(t, "two")
	c.hear(t, "two")
}

func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := call(t, p)
	c.say(t, "one")
	c.hear(t, "one")
	p.Refuse()
	c.hearReset(t)
	if _, err := net.Dial("tcp", p.Address()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want connection refused", err)
	}
	p.Restore(t)
	c = call(t, p)
	c.say(t, "two")
	c.hear(t, "two")
}

func TestProxyHangs(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := call(t, p)
	c.say(t, "one")
	c.hear(t, "one")
	p.Hang()
	c.say(t, "two")
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if got, err := c.lines.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v, want nothing", got, err)
	}
	late := call(t, p)
	late.say(t, "three")
	p.Restore(t)
	c.hear(t, "two")
	late.hear(t, "three")
	// One that hangs can be cut, too.
	p.Hang()
	c.say(t, "four")
	p.ResetConnections()
	c.hearReset(t)
}

func TestProxyIsSlow(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := call(t, p)
	const delay = 100 * time.Millisecond
	p.Delay(delay)
	start := time.Now()
	c.say(t, "one")
	c.hear(t, "one")
	if took := time.Since(start); took < 2*delay {
		t.Errorf("there and back took %s, want %s at least", took, 2*delay)
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
