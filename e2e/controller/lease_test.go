//go:build e2e

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// holder returns the lease's holder, or "".
func holder(lease *coordinationv1.Lease) string { return ptr.Deref(lease.Spec.HolderIdentity, "") }

// awaitHolder waits for a holder of the lease other than the given ones.
func awaitHolder(t *testing.T, e *framework.Env, not ...string) string {
	t.Helper()
	var identity string
	e.Await(t, "a holder of the lease", framework.Timeout, func(ctx context.Context) error {
		lease, err := e.Client.CoordinationV1().Leases(e.LeaseNamespace()).Get(ctx, e.LeaseName(), metav1.GetOptions{})
		if err != nil {
			return err
		}
		identity = holder(lease)
		for _, other := range append(not, "") {
			if identity == other {
				return fmt.Errorf("its holder is %q", identity)
			}
		}
		return nil
	})
	return identity
}

// cephClients returns the Ceph clients in the lease's annotation.
func cephClients(t *testing.T, e *framework.Env) []rbdutil.Client {
	t.Helper()
	lease, err := e.Client.CoordinationV1().Leases(e.LeaseNamespace()).Get(t.Context(), e.LeaseName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var clients []rbdutil.Client
	if text := lease.Annotations["rbd-provisioner.ceph.com/ceph-clients"]; text != "" {
		if err := json.Unmarshal([]byte(text), &clients); err != nil {
			t.Fatal(err)
		}
	}
	return clients
}

// fenced returns the number of clients that a provisioner has blocklisted.
func fenced(t *testing.T, p *process) float64 {
	t.Helper()
	return samples(t, p)[`rbd_provisioner_fenced_clients_total{result="fenced"}`]
}

// wantFenced requires that this provisioner has blocklisted exactly the clients.
func wantFenced(t *testing.T, e *framework.Env, p *process, clients []rbdutil.Client) {
	t.Helper()
	if got := fenced(t, p); got != float64(len(clients)) || len(clients) == 0 {
		t.Errorf("%g clients were fenced, want %d", got, len(clients))
	}
	blocked := e.Ceph.Run(t, "ceph", "osd", "blocklist", "ls")
	for _, client := range clients {
		if !strings.Contains(blocked, client.Address+" ") || !strings.Contains(p.Log(), client.Address) {
			t.Errorf("client %s is not on Ceph's blocklist, or not in the log:\n%s", client.Address, blocked)
		}
	}
}
