package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	namespaceDir    = "/run/netns"
	namespacePrefix = "rbdlab-"

	// HostIP is the host's address in the lab, of monitors and API server.
	HostIP = "10.111.0.1"
	// ServiceIP is the service address of the API server for pods.
	ServiceIP = "10.96.0.1"

	bridge = "br0"
	// maxNodes is the number of nodes that have a tap device, a route and a token.
	maxNodes = 8
)

// NodeIP returns the address of a node.
func NodeIP(i int) string { return fmt.Sprintf("10.111.0.%d", 10+i) }

// PodCIDR returns the address range of the pods of a node.
func PodCIDR(i int) string { return fmt.Sprintf("10.244.%d.0/24", i) }

// network is the lab's network namespace.
type network struct {
	namespace string
}

func (n *network) path() string { return filepath.Join(namespaceDir, n.namespace) }

// create creates the namespace, the bridge with a tap device for each possible node, and the
// routes.
func (n *network) create() error {
	if out, err := exec.Command("ip", "netns", "add", n.namespace).CombinedOutput(); err != nil {
		return fmt.Errorf("create network namespace %s: %w: %s", n.namespace, err, bytes.TrimSpace(out))
	}
	var batch strings.Builder
	fmt.Fprintf(&batch, "link set lo up\naddress add %s/32 dev lo\n", ServiceIP)
	fmt.Fprintf(&batch, "link add %s type bridge\naddress add %s/24 dev %s\nlink set %s up\n", bridge, HostIP, bridge, bridge)
	for i := range maxNodes {
		fmt.Fprintf(&batch, "tuntap add dev %s mode tap\nlink set %s master %s up\n", tap(i), tap(i), bridge)
		fmt.Fprintf(&batch, "route add %s via %s\n", PodCIDR(i), NodeIP(i))
	}
	cmd := exec.Command("ip", "-netns", n.namespace, "-batch", "-")
	cmd.Stdin = strings.NewReader(batch.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set up the network: %w: %s", err, bytes.TrimSpace(out))
	}
	return n.do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
	})
}

func tap(node int) string { return fmt.Sprintf("tap%d", node) }

// remove removes the name. The kernel removes the namespace with its last process.
func (n *network) remove() error {
	if err := unix.Unmount(n.path(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", n.path(), err)
	}
	if err := os.Remove(n.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// inode returns the inode of the namespace; ok is false if it does not exist.
func (n *network) inode() (inode uint64, ok bool, err error) {
	var stat unix.Statfs_t
	err = unix.Statfs(n.path(), &stat)
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("stat %s: %w", n.path(), err)
	}
	// An interrupted "ip netns add" leaves an empty file.
	if stat.Type != unix.NSFS_MAGIC {
		return 0, false, nil
	}
	var file unix.Stat_t
	if err := unix.Stat(n.path(), &file); err != nil {
		return 0, false, fmt.Errorf("stat %s: %w", n.path(), err)
	}
	return file.Ino, true, nil
}

// enter moves the calling thread into the namespace.
func (n *network) enter() error {
	fd, err := unix.Open(n.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", n.namespace, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n.namespace, err)
	}
	return nil
}

// do runs fn on a thread in the namespace. Processes and sockets that fn creates stay there.
func (n *network) do(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		defer func() { _ = unix.Close(home) }()
		if err = n.enter(); err == nil {
			err = fn()
		}
		// A thread that cannot return to its namespace stays locked and ends with the
		// goroutine.
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// Dial connects from inside the lab's network. The address must be numeric.
func (l *Lab) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := l.net.do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
