//go:build e2e

package controller

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// newProxiedEnv creates an environment with a proxy in front of the API server, for processes
// with a kubeconfig of that proxy. The test itself does not use it.
func newProxiedEnv(t *testing.T) (*framework.Env, *framework.Proxy) {
	t.Helper()
	server, err := url.Parse(framework.Config(t).Host)
	if err != nil {
		t.Fatal(err)
	}
	port := server.Port()
	if port == "" {
		port = "443"
	}
	// The proxy is closed after the Env, and works when the Env ends.
	api := framework.NewProxy(t, net.JoinHostPort(server.Hostname(), port))
	e := newEnv(t)
	t.Cleanup(func() { api.Restore(t) })
	return e, api
}

// fewClaims keep one worker busy during a fault.
const fewClaims = 24

// apiFault causes a fault of the API server, or of its network, during work. It returns when
// the provisioner is affected.
type apiFault func(t *testing.T, e *framework.Env, p *process, api *framework.Proxy)

// TestTheAPIServerFails lets the API server fail while many claims are created. All claims are
// served, changes of other claims are not missed, and the only worker continues.
func TestTheAPIServerFails(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]apiFault{
		"is-away": func(t *testing.T, e *framework.Env, p *process, api *framework.Proxy) {
			api.Refuse()
			awaitFailedRequests(t, e, p, 20)
		},
		"does-not-answer": func(_ *testing.T, _ *framework.Env, _ *process, api *framework.Proxy) {
			api.Hang()
			time.Sleep(5 * time.Second) // there is no condition to wait for
		},
		"is-slow": func(t *testing.T, e *framework.Env, _ *process, api *framework.Proxy) {
			api.Delay(100 * time.Millisecond) // for each request and each response
			awaitImages(t, e, fewClaims/3)
		},
		"cuts-connections": func(t *testing.T, e *framework.Env, _ *process, api *framework.Proxy) {
			cuts := 0
			e.Await(t, "6 connections to be cut", framework.Timeout, func(context.Context) error {
				if cuts += api.ResetConnections(); cuts < 6 {
					return fmt.Errorf("so far %d", cuts)
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, api := newProxiedEnv(t)
			class := e.Class(t, "busy")
			// The lease is longer than the fault, also on a busy machine.
			p := start(t, e, "--kubeconfig="+framework.ProxiedKubeconfig(t, api), "--worker-threads=1",
				"--leader-election-lease-duration=300s", "--leader-election-renew-deadline=270s")
			left := e.AwaitBound(t, e.Claim(t, "left", class))
			before := awaitIdle(t, e, p)

			claims := createClaims(t, e, class, fewClaims)
			awaitImages(t, e, 3)
			fault(t, e, p, api)
			wantBusy(t, e, fewClaims)
			e.DeleteClaim(t, "left")
			claims = append(claims, e.Claim(t, "meanwhile", class))
			api.Restore(t)

			e.AwaitVolumeGone(t, left)
			wantBoundOnce(t, e, claims)
			// An idle provisioner has only the connections of watches.
			awaitIdle(t, e, p)
			if api.ResetConnections() == 0 {
				t.Error("no connection was open for a watch")
			}
			wantBoundOnce(t, e, append(claims, e.Claim(t, "afterwards", class)))
			wantSameIdleState(t, e, p, before)
			if strings.Contains(p.Log(), "the lease was lost") {
				t.Error("the lease was lost, so the fault was too long for this test")
			}
		})
	}
}

// awaitFailedRequests waits until n more requests have failed.
func awaitFailedRequests(t *testing.T, e *framework.Env, p *process, n float64) {
	t.Helper()
	before, err := failedRequests(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	e.Await(t, fmt.Sprintf("%g failed requests", n), framework.Timeout, func(ctx context.Context) error {
		now, err := failedRequests(ctx, p)
		if err == nil && now < before+n {
			err = fmt.Errorf("there were %g", now-before)
		}
		return err
	})
}

// wantBusy fails the test if all n claims have been served already.
func wantBusy(t *testing.T, e *framework.Env, n int) {
	t.Helper()
	volumes, err := e.Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(volumes) >= n {
		t.Fatalf("all %d volumes exist already: the provisioner was not busy", len(volumes))
	}
}

// TestALeaderThatIsCutOffIsReplaced disconnects a leader from the API server. Unlike a frozen
// leader, it continues its operations inside Ceph, and cannot report them.
func TestALeaderThatIsCutOffIsReplaced(t *testing.T) {
	t.Parallel()
	e, api := newProxiedEnv(t)
	class := e.Class(t, "busy")
	flags := []string{"--leader-election-lease-duration=10s", "--leader-election-renew-deadline=8s", "--worker-threads=2"}
	leader := start(t, e, append(flags, "--kubeconfig="+framework.ProxiedKubeconfig(t, api))...)
	first := awaitHolder(t, e)
	standby := start(t, e, flags...)
	standby.AwaitLog(t, e, "Started waiting for the lease")
	claims := createClaims(t, e, class, manyClaims)
	awaitImages(t, e, 3)
	clients := cephClients(t, e)
	api.Hang()
	wantBusy(t, e, manyClaims)
	if code := leader.AwaitExit(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	lease, err := e.Client.CoordinationV1().Leases(e.LeaseNamespace()).Get(t.Context(), e.LeaseName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := holder(lease); got != first {
		t.Errorf("%q held the lease before the leader had ended", got)
	}
	awaitHolder(t, e, first)
	wantBoundOnce(t, e, claims)
	wantFenced(t, e, standby, clients)
	awaitIdle(t, e, standby)
}

// TestFailover logs how long no provisioner works after a leader's end, with the default lease
// settings.
func TestFailover(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "plain")
	const leaseDuration, rounds = 15 * time.Second, 3
	replica := func() *process { return start(t, e) }
	leader := replica()
	awaitHolder(t, e)
	var took []time.Duration
	for i := range rounds {
		standby := replica()
		awaitReady(t, e, standby)
		begun := time.Now()
		if code := leader.Terminate(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		e.AwaitVolume(t, e.Claim(t, fmt.Sprintf("terminated-%d", i), class, framework.AssignedTo(e.Provisioner)), framework.Timeout)
		took = append(took, time.Since(begun).Round(10*time.Millisecond))
		if took[i] > leaseDuration {
			t.Errorf("the next volume was created %s after SIGTERM: the lease was not released", took[i])
		}
		leader = standby
	}
	t.Logf("from SIGTERM of the leader to the next volume: %v", took)

	awaitReady(t, e, replica())
	begun := time.Now()
	leader.Kill(t)
	e.AwaitVolume(t, e.Claim(t, "killed", class, framework.AssignedTo(e.Provisioner)), framework.Timeout)
	t.Logf("from SIGKILL of the leader to the next volume: %s", time.Since(begun).Round(10*time.Millisecond))
}
