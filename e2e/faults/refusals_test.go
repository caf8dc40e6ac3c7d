//go:build e2e

package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestRefusals lets Ceph refuse requests that it allowed before, while claims are created and
// deleted, until its administrator fixes the cause.
func TestRefusals(t *testing.T) {
	for _, f := range []fault{
		{"pool-full", fillPool, []string{"no space left", "raise the quota of pool"}, false},
		{"caps-revoked", revokeCaps, []string{denied, "its capabilities include"}, false},
		{"key-rotated", rotateKey, []string{denied, framework.AdminSecret + " holds the key of"}, false},
	} {
		t.Run(f.name, func(t *testing.T) {
			r := newRig(t)
			r.testFault(t, f, func() *corev1.PersistentVolumeClaim { return r.Claim(t, "probe", r.sick) })
		})
	}
}

// fillPool uses up the pool's quota. Ceph detects it some seconds later.
func fillPool(t *testing.T, r *rig) (end func()) {
	quota := func(objects string) {
		r.Ceph.Run(t, "ceph", "osd", "pool", "set-quota", r.Pool, "max_objects", objects)
	}
	quota("1")
	end = func() { quota("0") }
	t.Cleanup(end)
	r.Await(t, "pool "+r.Pool+" to be full", framework.Timeout, func(ctx context.Context) error {
		out, err := r.Ceph.Try(ctx, "ceph", "osd", "pool", "ls", "detail")
		if err != nil {
			return err
		}
		for _, line := range strings.Split(string(out), "\n") {
			if strings.Contains(line, "'"+r.Pool+"'") && strings.Contains(line, "full_quota") {
				return nil
			}
		}
		return fmt.Errorf("pools:\n%s", out)
	})
	return end
}

// revokeCaps removes the OSD capabilities of the class's user.
func revokeCaps(t *testing.T, r *rig) (end func()) {
	r.Ceph.Run(t, "ceph", "auth", "caps", "client."+r.User, "mon", "profile rbd")
	end = func() {
		pool := "profile rbd pool=" + r.Pool
		r.Ceph.Run(t, "ceph", "auth", "caps", "client."+r.User, "mon", "profile rbd", "osd", pool)
	}
	t.Cleanup(end)
	r.reconnect(t)
	return end
}

// rotateKey gives the class's user another key. The Secrets are updated at the end of the
// fault.
func rotateKey(t *testing.T, r *rig) (end func()) {
	keyring := filepath.Join(t.TempDir(), "keyring")
	old := r.Ceph.Run(t, "ceph", "auth", "get", "client."+r.User)
	key := r.Ceph.Run(t, "ceph-authtool", "--gen-print-key")
	if err := os.WriteFile(keyring, []byte(strings.Replace(old, r.Key.Reveal(), key, 1)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Ceph.Run(t, "ceph", "auth", "import", "-i", keyring)
	end = func() {
		r.PutSecret(t, framework.AdminSecret, key)
		r.PutSecret(t, framework.UserSecret, key)
	}
	r.reconnect(t)
	return end
}

// reconnect makes the provisioner connect to Ceph again, because an existing connection keeps
// its capabilities.
func (r *rig) reconnect(t *testing.T) {
	t.Helper()
	resume := pause("osd.0")(t, r)
	defer resume()
	r.AwaitEvent(t, r.Claim(t, "cut-off", r.sick), framework.Timeout, "ProvisioningFailed", slow)
}
