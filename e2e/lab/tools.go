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

// packages are the Debian packages that the lab is made from.
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

// policyFile is what Debian's maintainer scripts ask before they start a daemon.
const policyFile = "/usr/sbin/policy-rc.d"

// Prepare installs the packages that are missing, and those of extra, and builds
// Kubernetes unless the cache has it. It is a part of Up.
func (l *Lab) Prepare(ctx context.Context, extra ...string) error {
	if err := l.preflight(0); err != nil {
		return err
	}
	if err := l.installPackages(ctx, append(packages(), extra...)); err != nil {
		return err
	}
	return l.buildKubernetes(ctx)
}

func (l *Lab) installPackages(ctx context.Context, wanted []string) error {
	missing, err := prepare.MissingPackages(ctx, wanted)
	if err != nil || len(missing) == 0 && !isOurs(policyFile) {
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
		// Half an installation is worse than waiting for its end: from here on
		// nothing is interrupted.
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
	// Out of the way of an interrupt from the terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return runLogged(cmd, filepath.Join(l.opts.CacheDir, "apt.log"))
}

// policyText is what we write to the policy file, and how we know it again.
const policyText = "#!/bin/sh\n# Made by the rbd-provisioner lab while it installs packages.\nexit 101\n"

// forbidDaemons keeps packages from starting their daemons while they are being
// installed. A policy that the machine has already is left alone, for whoever
// made it has decided; unless an interrupted installation of ours has left it.
func forbidDaemons(policy string) (restore func(), err error) {
	if exists(policy) && !isOurs(policy) {
		return func() {}, nil
	}
	restore = func() { _ = os.Remove(policy) }
	if err := os.WriteFile(policy, []byte(policyText), 0o755); err != nil {
		restore()
		return nil, err
	}
	return restore, nil
}

func isOurs(policy string) bool {
	data, err := os.ReadFile(policy)
	return err == nil && string(data) == policyText
}

// disableUnits keeps systemd, where there is one, from starting at the next boot
// what we have installed.
func disableUnits(installed []string) {
	for pkg, unit := range map[string]string{"containerd": "containerd.service", "etcd-server": "etcd.service"} {
		if slices.Contains(installed, pkg) {
			_ = exec.Command("systemctl", "disable", unit).Run()
		}
	}
}

// runLogged runs a command whose output is of interest only if it fails.
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
