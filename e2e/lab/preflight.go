package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	gib = 1 << 30

	needDisk = 10 * gib
	// needMemory is the memory for Ceph and the control plane, without nodes.
	needMemory = 3 * gib
)

// preflight checks the requirements of a start and returns all problems at once, each with its
// remedy.
func (l *Lab) preflight(nodes int) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("the lab runs on linux/amd64 only, not on %s/%s: User-Mode Linux is not packaged for other platforms", runtime.GOOS, runtime.GOARCH)
	}
	if os.Geteuid() != 0 {
		return errors.New("the lab must run as root, to create a network namespace and mounts")
	}
	var problems []error
	problems = append(problems, checkCapabilities()...)
	if !exists("/etc/debian_version") || !exists("/usr/bin/apt-get") {
		problems = append(problems, errors.New("apt-get or /etc/debian_version not found: the lab needs Debian or a derivative, to install packages"))
	}
	if !exists("/dev/net/tun") {
		problems = append(problems, errors.New("/dev/net/tun not found; run `modprobe tun`, or start the container with --device /dev/net/tun"))
	}
	if free, err := freeMemory("/proc/meminfo"); err != nil {
		problems = append(problems, err)
	} else if need := int64(needMemory) + int64(nodes)*nodeMemory/2; free < need {
		problems = append(problems, fmt.Errorf("not enough free memory: %.1f GiB are available, %d nodes need %.1f GiB", float64(free)/gib, nodes, float64(need)/gib))
	}
	for _, dir := range []string{l.opts.StateDir, l.opts.CacheDir} {
		if free, err := freeDisk(dir); err != nil {
			problems = append(problems, err)
		} else if free < needDisk {
			problems = append(problems, fmt.Errorf("not enough free disk space: %.1f GiB are available at %s, the lab needs %d GiB", float64(free)/gib, dir, needDisk/gib))
		}
	}
	return errors.Join(problems...)
}

func checkCapabilities() []error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return []error{fmt.Errorf("read capabilities: %w", err)}
	}
	var problems []error
	for _, needed := range []struct {
		name string
		bit  uint
		why  string
	}{
		{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN, "to create namespaces and mounts"},
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, "to create the bridge and its ports"},
		{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE, "for User-Mode Linux"},
	} {
		if data[needed.bit/32].Effective&(1<<(needed.bit%32)) == 0 {
			problems = append(problems, fmt.Errorf("capability %s is missing, it is needed %s", needed.name, needed.why))
		}
	}
	return problems
}

// freeMemory returns the memory that is available without swapping.
func freeMemory(meminfo string) (int64, error) {
	file, err := os.Open(meminfo)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 1 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no MemAvailable in %s", meminfo)
}

// freeDisk returns the free space at dir, which need not exist yet.
func freeDisk(dir string) (int64, error) {
	for !exists(dir) {
		dir = filepath.Dir(dir)
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return int64(stat.Bavail) * stat.Bsize, nil
}
