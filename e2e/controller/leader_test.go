//go:build e2e

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// manyClaims keep a provisioner busy.
const manyClaims = 60

// createClaims creates claims at once.
func createClaims(t *testing.T, e *framework.Env, class string, n int) []*corev1.PersistentVolumeClaim {
	t.Helper()
	var claims []*corev1.PersistentVolumeClaim
	for i := range n {
		claims = append(claims, e.Claim(t, fmt.Sprintf("claim-%d", i), class))
	}
	return claims
}

// awaitImages waits until n of the claims have volumes.
func awaitImages(t *testing.T, e *framework.Env, n int) {
	t.Helper()
	e.Await(t, fmt.Sprintf("%d volumes", n), framework.Timeout, func(ctx context.Context) error {
		volumes, err := e.Volumes(ctx)
		if err == nil && len(volumes) < n {
			err = fmt.Errorf("there are %d", len(volumes))
		}
		return err
	})
}

// wantBoundOnce waits until all claims are bound and requires exactly one image for each.
func wantBoundOnce(t *testing.T, e *framework.Env, claims []*corev1.PersistentVolumeClaim) {
	t.Helper()
	var want []string
	for _, claim := range claims {
		want = append(want, e.AwaitBound(t, claim).Spec.RBD.RBDImage)
	}
	slices.Sort(want)
	got := e.Ceph.Images(t, e.Pool)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}

// wantNoFailure requires that no claim has a failure event.
func wantNoFailure(t *testing.T, e *framework.Env, claims []*corev1.PersistentVolumeClaim) {
	t.Helper()
	for _, claim := range claims {
		events, err := e.Events(t.Context(), claim)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range events {
			if event.Reason == "ProvisioningFailed" {
				t.Errorf("claim %s has a failure event: %s", claim.Name, event.Message)
			}
		}
	}
}

// TestTerminationFinishesWhatRuns has no second replica, which would finish the work of the
// first.
func TestTerminationFinishesWhatRuns(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "busy")
	p := start(t, e, "--worker-threads=2")
	claims := createClaims(t, e, class, manyClaims)
	awaitImages(t, e, 3)
	if code := p.Terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	lease, err := e.Client.CoordinationV1().Leases(e.Namespace).Get(t.Context(), e.LeaseName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if holder := holder(lease); holder != "" {
		t.Errorf("the lease is held by %q", holder)
	}
	if clients := cephClients(t, e); len(clients) > 0 {
		t.Errorf("the lease still names %v", clients)
	}
	images := e.Ceph.Images(t, e.Pool)
	if len(images) >= manyClaims {
		t.Fatalf("all %d images existed before the end: the provisioner was not busy", len(images))
	}
	volumes, err := e.Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(volumes) != len(images) {
		t.Errorf("%d images have %d volumes: running operations were not finished", len(images), len(volumes))
	}
	t.Logf("ended with %d of %d claims served", len(volumes), manyClaims)
	start(t, e)
	wantBoundOnce(t, e, claims)
	wantNoFailure(t, e, claims)
}

func TestTerminationHandsOver(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "busy")
	leader := start(t, e, "--worker-threads=2")
	first := awaitHolder(t, e)
	standby := start(t, e, "--worker-threads=2")
	standby.AwaitLog(t, e, "Started waiting for the lease")
	holders := watchHolders(t, e)
	claims := createClaims(t, e, class, manyClaims)
	awaitImages(t, e, 3)
	if code := leader.Terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	ended := time.Now()
	standby.AwaitLog(t, e, `"Started leading"`)
	t.Logf("the second replica leads %s after the first has ended", time.Since(ended).Round(time.Millisecond))
	second := awaitHolder(t, e, first)
	// The lease was free in between: it was released and did not expire.
	if diff := cmp.Diff([]string{first, "", second}, holders()); diff != "" {
		t.Errorf("holders of the lease (-want +got):\n%s", diff)
	}
	wantBoundOnce(t, e, claims)
	wantNoFailure(t, e, claims)
	if clients := cephClients(t, e); len(clients) != 1 {
		t.Errorf("the lease names %v, want the one client of the second leader", clients)
	}
	if got := fenced(t, standby); got != 0 {
		t.Errorf("%g clients were fenced after a clean stop", got)
	}
}

// watchHolders records all holders of the lease. The returned function stops it and returns
// them.
func watchHolders(t *testing.T, e *framework.Env) func() []string {
	t.Helper()
	leases := e.Client.CoordinationV1().Leases(e.Namespace)
	lease, err := leases.Get(t.Context(), e.LeaseName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := leases.Watch(t.Context(), metav1.ListOptions{
		ResourceVersion: lease.ResourceVersion, FieldSelector: "metadata.name=" + e.LeaseName(),
	})
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan []string, 1)
	go func() {
		seen := []string{holder(lease)}
		for event := range watcher.ResultChan() {
			now, ok := event.Object.(*coordinationv1.Lease)
			if ok && event.Type == watch.Modified && holder(now) != seen[len(seen)-1] {
				seen = append(seen, holder(now))
			}
		}
		result <- seen
	}()
	return func() []string {
		watcher.Stop()
		return <-result
	}
}

// TestAFrozenLeaderIsReplaced stops a working leader for longer than its lease, and resumes it
// when another leads.
func TestAFrozenLeaderIsReplaced(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "busy")
	flags := []string{"--leader-election-lease-duration=10s", "--leader-election-renew-deadline=8s", "--worker-threads=2"}
	frozen := start(t, e, flags...)
	first := awaitHolder(t, e)
	standby := start(t, e, flags...)
	standby.AwaitLog(t, e, "Started waiting for the lease")
	claims := createClaims(t, e, class, manyClaims)
	awaitImages(t, e, 3)
	frozen.Pause(t)
	if volumes, err := e.Volumes(t.Context()); err != nil || len(volumes) >= manyClaims {
		t.Fatalf("%d volumes, %v: the provisioner was not busy", len(volumes), err)
	}
	clients := cephClients(t, e)
	awaitHolder(t, e, first, "")
	wantBoundOnce(t, e, claims)
	// The standby must fence it before its own first change.
	wantFenced(t, e, standby, clients)
	frozen.Resume(t)
	if code := frozen.AwaitExit(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if log := frozen.Log(); !strings.Contains(log, "the lease was lost") && !strings.Contains(log, "client is on Ceph's blocklist") {
		t.Error("the log has no reason for the exit")
	}
	// The operations of the first leader may only have caused events.
	wantBoundOnce(t, e, claims)
	more := e.Claim(t, "afterwards", class)
	wantBoundOnce(t, e, append(claims, more))
}
