//go:build e2e

package faults

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

const (
	// measured is the number of claims of the healthy class in each measurement.
	measured = 60
	// waiting is the number of claims of the failed class at the same time.
	waiting = 5 * workers
	// slowdown is the maximum slowdown of the healthy class, with a margin for a busy machine.
	// On an idle one it should be below 1.1.
	slowdown = 1.5
)

// TestADeadCephSlowsNobody measures how fast the claims of one class are served, alternately
// alone and beside another class whose Ceph has failed. Each time it fails in another way.
func TestADeadCephSlowsNobody(t *testing.T) {
	r := newRig(t)
	second := r.withSecondCeph(t)
	r.measure(t) // warm-up
	var alone, dead []time.Duration
	for _, die := range []func(*testing.T, *rig) func(){
		both(dropTraffic("mon.a"), dropTraffic("osd.0")),
		both(pause("mon.a"), pause("osd.0")),
		both(dropTraffic("mon.a"), pause("osd.0")),
		both(kill("mon.a"), dropTraffic("osd.0")),
		// The provisioner is connected, so its claims get as far as their images.
		connectAnd(pause("osd.0")),
	} {
		alone = append(alone, r.measure(t))
		end := sync.OnceFunc(die(t, second))
		t.Cleanup(end)
		second.awaitDead(t)
		dead = append(dead, r.measure(t))
		if _, body := r.p.Get(t, "/readyz"); !listsUnavailable(body, second.Monitors) || listsUnavailable(body, r.Monitors) {
			t.Errorf("/readyz: %q, want only %s", body, second.Monitors)
		}
		second.deleteClaims(t)
		end()
		second.awaitIdle(t)
	}
	ofMedians := float64(median(dead)) / float64(median(alone))
	ofBest := float64(slices.Min(dead)) / float64(slices.Min(alone))
	t.Logf("%d claims were served in %s alone and in %s beside %d claims of a failed Ceph: ratio of the medians %.2f, of the minima %.2f",
		measured, alone, dead, waiting, ofMedians, ofBest)
	if min(ofMedians, ofBest) > slowdown {
		t.Errorf("a failed Ceph slows the claims of another by a factor of %.2f", min(ofMedians, ofBest))
	}
}

// withSecondCeph returns a rig of the same provisioner with a class for the second Ceph.
func (r *rig) withSecondCeph(t *testing.T) *rig {
	t.Helper()
	first, second := os.Getenv("CEPH_CONF"), openLab(t).SecondCeph()
	t.Setenv("CEPH_CONF", second.ConfFile())
	other := &rig{Env: framework.New(t, r.Provisioner), p: r.p, ceph: second}
	t.Setenv("CEPH_CONF", first)
	other.sick = other.Class(t, "sick")
	return other
}

// awaitDead creates claims of a failed Ceph, more than there are workers, and waits until the
// first fails.
func (r *rig) awaitDead(t *testing.T) {
	t.Helper()
	first := r.Claim(t, "dead-0", r.sick)
	for i := 1; i < waiting; i++ {
		r.Claim(t, fmt.Sprintf("dead-%d", i), r.sick)
	}
	r.AwaitEvent(t, first, framework.Timeout, "ProvisioningFailed")
}

// measure creates claims at once, returns the time until the last is bound, and deletes them.
func (r *rig) measure(t *testing.T) time.Duration {
	t.Helper()
	watcher, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	begun := time.Now()
	pending := map[types.UID]bool{}
	for i := range measured {
		pending[r.Claim(t, fmt.Sprintf("measured-%d", i), r.sick).UID] = true
	}
	timeout := time.After(framework.Timeout)
	for len(pending) > 0 {
		select {
		case event := <-watcher.ResultChan():
			claim, ok := event.Object.(*corev1.PersistentVolumeClaim)
			if !ok {
				t.Fatalf("the watch ended with %d claims unbound: %v", len(pending), event.Object)
			}
			if claim.Status.Phase == corev1.ClaimBound {
				delete(pending, claim.UID)
			}
		case <-timeout:
			t.Fatalf("after %s %d of %d claims are not bound", framework.Timeout, len(pending), measured)
		}
	}
	took := time.Since(begun)
	r.deleteAll(t)
	return took
}

// both combines two faults.
func both(one, other func(*testing.T, *rig) func()) func(*testing.T, *rig) func() {
	return func(t *testing.T, r *rig) func() {
		ends := []func(){one(t, r), other(t, r)}
		return func() {
			for _, end := range ends {
				end()
			}
		}
	}
}

// connectAnd waits until the provisioner is connected before the fault begins.
func connectAnd(begin func(*testing.T, *rig) func()) func(*testing.T, *rig) func() {
	return func(t *testing.T, r *rig) func() {
		r.AwaitBound(t, r.Claim(t, "connected", r.sick))
		return begin(t, r)
	}
}

func median(of []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}
