package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Silence drops whatever arrives at the daemon's TCP sockets, on connections that
// there are and on new ones, as a network that has failed does. Unlike with a
// paused daemon, not even the kernel answers.
func (d *Daemon) DropTraffic() error {
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	return d.eachSocket(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
	})
}

// Hear ends what Silence has begun. What was sent meanwhile arrives when TCP sends
// it again.
func (d *Daemon) RestoreTraffic() error {
	return d.eachSocket(func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil // it has none
		}
		return err
	})
}

// Reset resets the daemon's TCP connections, as a firewall does that has forgotten
// them, and returns how many. New ones are served.
func (d *Daemon) Reset() (n int, err error) {
	err = d.eachSocket(func(fd int) error {
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens != 0 {
			return err
		}
		// connect(2): to dissolve an association, connect to AF_UNSPEC.
		nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
		if errno != 0 {
			return errno
		}
		n++
		return nil
	})
	return n, err
}

// eachSocket calls fn with a descriptor of our own for each of the daemon's TCP
// sockets.
func (d *Daemon) eachSocket(fn func(fd int) error) error {
	if !d.Running() {
		return fmt.Errorf("%s is not running", d.Name())
	}
	pidfd, err := unix.PidfdOpen(d.PID(), 0)
	if err != nil {
		return fmt.Errorf("open process of %s: %w", d.Name(), err)
	}
	defer func() { _ = unix.Close(pidfd) }()
	folder := filepath.Join(string(hostProc), strconv.Itoa(d.PID()), "fd")
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(folder, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(target, "socket:") {
			continue
		}
		theirs, err := strconv.Atoi(entry.Name())
		if err != nil {
			return err
		}
		if err := onSocket(pidfd, theirs, fn); err != nil {
			return fmt.Errorf("socket %d of %s: %w", theirs, d.Name(), err)
		}
	}
	return nil
}

// onSocket calls fn if the process's descriptor is a TCP socket and still open.
func onSocket(pidfd, theirs int, fn func(fd int) error) error {
	fd, err := unix.PidfdGetfd(pidfd, theirs, 0)
	if errors.Is(err, unix.EBADF) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); protocol != unix.IPPROTO_TCP {
		return nil
	}
	return fn(fd)
}
