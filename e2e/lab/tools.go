package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// packages returns the Debian packages that the lab needs.
func packages() []string {
	return []string{
		// Ceph, and its commands for the nodes.
		"ceph-mon", "ceph-mgr", "ceph-osd", "ceph-common",
		// Control plane.
		"etcd-server",
		// Nodes.
		"user-mode-linux", "containerd", "runc", "containernetworking-plugins",
		"kmod", "udev", "e2fsprogs", "xfsprogs", "mount", "util-linux",
		// Network of the lab and of the nodes.
		"iproute2",
	}
}

// policyFile is the script that Debian's maintainer scripts ask before they start a daemon.
const policyFile = "/usr/sbin/policy-rc.d"

// Prepare installs the packages that Up installs with the same options, and builds Kubernetes
// unless it is in the cache. Up includes it.
func (l *Lab) Prepare(ctx context.Context, opts UpOptions) error {
	if err := opts.validate(); err != nil {
		return err
	}
	if err := l.preflight(0); err != nil {
		return err
	}
	return l.prepareFor(ctx, opts)
}

func (l *Lab) installPackages(ctx context.Context, wanted []string) error {
	missing, err := prepare.MissingPackages(ctx, wanted)
	if err != nil || len(missing) == 0 && !isLabPolicy(policyFile) {
		return err
	}
	return l.progress.Step(ctx, "installing packages: "+strings.Join(missing, " "), func(ctx context.Context) error {
		lock, err := prepare.Lock(ctx, filepath.Join(l.opts.RunDir, "packages.lock"), func() {})
		if err != nil {
			return err
		}
		defer prepare.Unlock(lock)
		restore, err := forbidDaemons(policyFile)
		if err != nil {
			return err
		}
		defer restore()
		if len(missing) == 0 {
			return nil
		}
		// A partial installation is worse than a wait, so the commands are not interrupted from
		// here on.
		for _, argv := range prepare.InstallCommands(missing) {
			if err := l.apt(argv); err != nil {
				return err
			}
		}
		disableUnits(missing)
		return ctx.Err()
	})
}

func (l *Lab) apt(argv []string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	// An interrupt from the terminal must not reach the command.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return runLogged(cmd, filepath.Join(l.opts.CacheDir, "apt.log"))
}

// policyText is the content of the policy file, which also identifies a file of the lab.
const policyText = "#!/bin/sh\n# Made by the rbd-provisioner lab while it installs packages.\nexit 101\n"

// forbidDaemons prevents packages from starting their daemons during their installation. An
// existing policy of the machine is not changed, unless an interrupted installation of the lab
// has left it.
func forbidDaemons(policy string) (restore func(), err error) {
	if exists(policy) && !isLabPolicy(policy) {
		return func() {}, nil
	}
	restore = func() { _ = os.Remove(policy) }
	if err := os.WriteFile(policy, []byte(policyText), 0o755); err != nil {
		restore()
		return nil, err
	}
	return restore, nil
}

func isLabPolicy(policy string) bool {
	data, err := os.ReadFile(policy)
	return err == nil && string(data) == policyText
}

// disableUnits prevents systemd, where it runs, from starting the installed daemons at the next
// boot.
func disableUnits(installed []string) {
	for pkg, unit := range map[string]string{"containerd": "containerd.service", "etcd-server": "etcd.service"} {
		if slices.Contains(installed, pkg) {
			_ = exec.Command("systemctl", "disable", unit).Run()
		}
	}
}

// runLogged runs a command and logs its output. The error includes the end of the log.
func runLogged(cmd *exec.Cmd, logFile string) error {
	if err := os.MkdirAll(filepath.Dir(logFile), 0o755); err != nil {
		return err
	}
	files, err := openLogs([]string{logFile})
	if err != nil {
		return err
	}
	defer closeAll(files)
	_, _ = fmt.Fprintf(files[0], "+ %s\n", strings.Join(cmd.Args, " "))
	cmd.Stdout, cmd.Stderr = files[0], files[0]
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w; the end of %s:\n%s", cmd.Args[0], err, logFile, prepare.Tail(logFile, 15))
	}
	return nil
}
