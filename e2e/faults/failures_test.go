//go:build e2e

package faults

import (
	"context"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// fault is one failure of Ceph.
type fault struct {
	name string
	// begin starts the fault; end ends it.
	begin func(*testing.T, *rig) (end func())
	// event has the phrases of the claim's event during the fault; none if the claim is served.
	event []string
	// unavailable is true if Ceph does not answer, so that /readyz names the cluster.
	unavailable bool
}

// The events of claims.
const (
	slow        = "Ceph did not answer in time"
	unreachable = "Ceph cluster cannot be reached"
	denied      = "access denied by Ceph"
)

// failures returns the failures of daemons and of the network.
func failures() []fault {
	return []fault{
		{"osd-frozen", pause("osd.0"), []string{slow}, true},
		{"osd-killed", kill("osd.0"), []string{slow}, true},
		{"osd-drops-traffic", dropTraffic("osd.0"), []string{slow}, true},
		{"monitor-frozen", pause("mon.a"), []string{unreachable}, true},
		{"monitor-killed", kill("mon.a"), []string{unreachable}, true},
		{"monitor-drops-traffic", dropTraffic("mon.a"), []string{unreachable}, true},
		{"monitor-slow", pauseRepeatedly("mon.a"), nil, false},
		{"connections-reset", reset("mon.a", "osd.0"), nil, false},
	}
}

// TestFailures lets Ceph fail and recover while claims are created and deleted.
func TestFailures(t *testing.T) {
	for _, f := range failures() {
		t.Run(f.name, func(t *testing.T) {
			r := newRig(t)
			// Another user on the same cluster needs a new connection. Without its monitors,
			// Ceph still serves existing connections.
			user := r.User + "-fresh"
			r.PutSecret(t, "fresh", r.NewUser(t, user, r.Pool).Reveal())
			fresh := r.Class(t, "fresh", framework.Parameter("adminId", user), framework.Parameter("adminSecretName", "fresh"))
			r.testFault(t, f, func() *corev1.PersistentVolumeClaim { return r.Claim(t, "probe", fresh) })
		})
	}
}

// testFault starts and ends the fault, and requires that everything recovers. The probe creates
// a claim during the fault.
func (r *rig) testFault(t *testing.T, f fault, probe func() *corev1.PersistentVolumeClaim) {
	t.Helper()
	r.createClaims(t, r.sick, 2*workers)
	r.deleteAll(t)
	before, err := r.usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop := r.startLoad(t, r.sick)
	r.awaitBusy(t)
	end := sync.OnceFunc(f.begin(t, r))
	t.Cleanup(end)
	claim := probe()
	if f.event == nil {
		r.AwaitBound(t, claim)
	} else {
		r.AwaitEvent(t, claim, framework.Timeout, "ProvisioningFailed", f.event...)
	}
	if f.unavailable {
		r.awaitUnavailable(t, r.Monitors)
	}
	end()
	r.AwaitBound(t, claim)
	stop()
	r.awaitIdle(t)
	r.awaitAvailable(t, r.Monitors)
	// If a worker were blocked, some of these claims would not be bound.
	r.createClaims(t, r.sick, 2*workers)
	r.deleteAll(t)
	r.wantUsage(t, before)
}

// awaitBusy waits until the load has its first volumes.
func (r *rig) awaitBusy(t *testing.T) {
	t.Helper()
	r.Await(t, "claims to be served", framework.Timeout, func(ctx context.Context) error {
		volumes, err := r.Volumes(ctx)
		if err == nil && len(volumes) < workers/2 {
			err = fmt.Errorf("there are %d volumes", len(volumes))
		}
		return err
	})
}
