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

// DropTraffic drops the incoming packets of the daemon's TCP sockets, of existing and new
// connections, like a failed network. Unlike for a paused daemon, the kernel sends no
// acknowledgements either.
func (d *Daemon) DropTraffic() error {
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	return d.eachSocket(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
	})
}

// RestoreTraffic ends DropTraffic. Data that was sent meanwhile arrives when TCP retransmits
// it.
func (d *Daemon) RestoreTraffic() error {
	return d.eachSocket(func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil // no filter is attached
		}
		return err
	})
}

// Reset resets the daemon's TCP connections, like a firewall that has lost its state, and
// returns their number. New connections work.
func (d *Daemon) Reset() (n int, err error) {
	err = d.eachSocket(func(fd int) error {
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens != 0 {
			return err
		}
		// connect(2): to dissolve an association, connect to AF_UNSPEC.
		unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
		if errno != 0 {
			return errno
		}
		n++
		return nil
	})
	return n, err
}

// eachSocket calls fn with a duplicated descriptor of each of the daemon's TCP sockets.
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

// onSocket calls fn if the process's descriptor is an open TCP socket.
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
