//go:build e2e

package controller

import (
	"context"
	"fmt"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// holder is who holds the lease, nothing if nobody does.
func holder(lease *coordinationv1.Lease) string { return ptr.Deref(lease.Spec.HolderIdentity, "") }

// awaitHolder waits until somebody holds the lease who is not among those.
func awaitHolder(t *testing.T, e *framework.Env, not ...string) string {
	t.Helper()
	var identity string
	e.Await(t, "a holder of the lease", framework.Patience, func(ctx context.Context) error {
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
