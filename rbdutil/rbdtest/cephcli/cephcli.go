// Package cephcli runs the commands of Ceph for tests, as an administrator does. So tests
// prepare and check independently what the code under test does by librbd.
package cephcli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Admin runs commands as client.admin of the cluster of a ceph.conf.
type Admin struct {
	conf string
}

// FromEnv uses the cluster of CEPH_CONF. Without it, the test fails: a Ceph test must not pass
// without having run.
func FromEnv(t *testing.T) Admin {
	t.Helper()
	conf := os.Getenv("CEPH_CONF")
	if conf == "" {
		t.Fatal("CEPH_CONF is not set to the path of a ceph.conf; `make test-ceph` starts a cluster and sets it")
	}
	return Admin{conf: conf}
}

// Conf returns the path of the cluster's ceph.conf.
func (a Admin) Conf() string { return a.conf }

// Try runs a command (ceph, rbd, rados) and returns its output and error.
func (a Admin) Try(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, append([]string{"--conf", a.conf}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// Run runs a command and fails the test if it fails.
func (a Admin) Run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := a.Try(ctx, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// JSON runs a command and decodes its JSON output.
func (a Admin) JSON(t *testing.T, into any, name string, args ...string) {
	t.Helper()
	out := a.Run(t, name, append(args, "--format", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("%s %s: %v in %q", name, strings.Join(args, " "), err, out)
	}
}

// Monitors returns the addresses that both the kernel client and librados accept.
func (a Admin) Monitors(t *testing.T) []string {
	t.Helper()
	var dump struct {
		Mons []struct {
			PublicAddrs struct {
				AddrVec []struct{ Type, Addr string } `json:"addrvec"`
			} `json:"public_addrs"`
		}
	}
	a.JSON(t, &dump, "ceph", "mon", "dump")
	var monitors []string
	for _, mon := range dump.Mons {
		for _, addr := range mon.PublicAddrs.AddrVec {
			if addr.Type == "v1" {
				monitors = append(monitors, addr.Addr)
			}
		}
	}
	return monitors
}

// CreatePool creates an RBD pool for the duration of the test.
func (a Admin) CreatePool(t *testing.T, name string) {
	t.Helper()
	a.Run(t, "ceph", "osd", "pool", "create", name, "8")
	t.Cleanup(func() { a.DeletePool(t, name) })
	a.Run(t, "rbd", "pool", "init", name)
}

// DeletePool deletes a pool with all its images.
func (a Admin) DeletePool(t *testing.T, name string) {
	t.Helper()
	a.Run(t, "ceph", "osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")
}

// CreateUser creates a user with the documented capabilities on the pools, and returns its key.
func (a Admin) CreateUser(t *testing.T, user string, pools ...string) rbdutil.Key {
	t.Helper()
	var caps []string
	for _, pool := range pools {
		caps = append(caps, "profile rbd pool="+pool)
	}
	a.Run(t, "ceph", "auth", "get-or-create", "client."+user, "mon", "profile rbd", "osd", strings.Join(caps, ", "))
	return rbdutil.NewKey(a.Run(t, "ceph", "auth", "get-key", "client."+user))
}

// Images lists the names of the images in a pool.
func (a Admin) Images(t *testing.T, pool string) []string {
	t.Helper()
	var names []string
	a.JSON(t, &names, "rbd", "ls", pool)
	return names
}

// Write writes a few bytes to an image.
func (a Admin) Write(t *testing.T, ref rbdutil.ImageRef) {
	t.Helper()
	a.Run(t, "rbd", "bench", "--io-type", "write", "--io-size", "4K", "--io-total", "4K", ref.String())
}

// Watch opens an image as a node that has it mapped does, until stop is called.
func (a Admin) Watch(t *testing.T, ref rbdutil.ImageRef) (stop func()) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "rbd", "--conf", a.conf, "watch", ref.String())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The command prints "press enter to exit..." when it watches the image.
	if _, err := bufio.NewReader(stdout).ReadString('.'); err != nil {
		t.Fatalf("rbd watch %s: %v", ref, err)
	}
	return func() {
		_, _ = stdin.Write([]byte("\n"))
		_ = cmd.Wait()
	}
}

// Snapshot creates a snapshot of an image.
func (a Admin) Snapshot(t *testing.T, ref rbdutil.ImageRef, name string) {
	t.Helper()
	a.Run(t, "rbd", "snap", "create", "--no-progress", ref.String()+"@"+name)
}

// Clone creates a clone of a snapshot.
func (a Admin) Clone(t *testing.T, ref rbdutil.ImageRef, snapshot string, clone rbdutil.ImageRef) {
	t.Helper()
	// Clone format 2 does not require a protected snapshot.
	a.Run(t, "rbd", "clone", "--rbd-default-clone-format", "2", ref.String()+"@"+snapshot, clone.String())
}

// Group adds an image to a group.
func (a Admin) Group(t *testing.T, ref rbdutil.ImageRef) {
	t.Helper()
	group := ref.String() + "-group"
	a.Run(t, "rbd", "group", "create", group)
	a.Run(t, "rbd", "group", "image", "add", group, ref.String())
}

// Lock adds a lock to an image, which is not removed.
func (a Admin) Lock(t *testing.T, ref rbdutil.ImageRef) {
	t.Helper()
	a.Run(t, "rbd", "lock", "add", ref.String(), "maintenance")
}

// Mirror enables snapshot-based mirroring of an image, which requires no other cluster.
func (a Admin) Mirror(t *testing.T, ref rbdutil.ImageRef) {
	t.Helper()
	a.Run(t, "rbd", "mirror", "pool", "enable", ref.Pool, "image")
	a.Run(t, "rbd", "mirror", "image", "enable", ref.String(), "snapshot")
}

// Migrate prepares the migration of an image to another name, and returns that name.
func (a Admin) Migrate(t *testing.T, ref rbdutil.ImageRef) (to rbdutil.ImageRef) {
	t.Helper()
	to = rbdutil.ImageRef{Pool: ref.Pool, Name: ref.Name + "-migrated"}
	a.Run(t, "rbd", "migration", "prepare", ref.String(), to.String())
	return to
}

// TrashByHand moves an image to the trash.
func (a Admin) TrashByHand(t *testing.T, ref rbdutil.ImageRef) {
	t.Helper()
	a.Run(t, "rbd", "trash", "mv", ref.String())
}

// SetRecord sets the metadata value of an image's record.
func (a Admin) SetRecord(t *testing.T, ref rbdutil.ImageRef, value string) {
	t.Helper()
	a.Run(t, "rbd", "image-meta", "set", ref.String(), rbdutil.MetaRecord, value)
}

// LeavePartial creates an image and removes its header. An interrupted creation or removal
// leaves the same: only the name.
func (a Admin) LeavePartial(t *testing.T, ref rbdutil.ImageRef) {
	t.Helper()
	a.Run(t, "rbd", "create", "--size", "1", ref.String())
	var info struct{ ID string }
	a.JSON(t, &info, "rbd", "info", ref.String())
	a.Run(t, "rados", "--pool", ref.Pool, "rm", "rbd_header."+info.ID)
}
