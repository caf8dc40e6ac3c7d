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

// newProxiedEnv is a place for a test with a proxy in front of the API server, for
// those processes that are to go through it. The test itself does not.
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
	// It outlives the Env, and is well when that ends.
	api := framework.NewProxy(t, net.JoinHostPort(server.Hostname(), port))
	e := newEnv(t)
	t.Cleanup(func() { api.Heal(t) })
	return e, api
}

// smallCrowd keeps one worker busy while a fault lasts.
const smallCrowd = 24

// apiFault is something that befalls the API server, or the way to it, while there is
// work. It returns when the provisioner has felt it.
type apiFault func(t *testing.T, e *framework.Env, p *process, api *framework.Proxy)

// TestTheAPIServerFails has the API server fail in the middle of a crowd of claims.
// None of them is lost, nor what happens to the others meanwhile, and the one worker
// that there is works on.
func TestTheAPIServerFails(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]apiFault{
		"is-away": func(t *testing.T, e *framework.Env, p *process, api *framework.Proxy) {
			api.Refuse()
			awaitFailedRequests(t, e, p, 20)
		},
		"does-not-answer": func(_ *testing.T, _ *framework.Env, _ *process, api *framework.Proxy) {
			api.Hang()
			time.Sleep(5 * time.Second) // nothing happens that one could wait for
		},
		"is-slow": func(t *testing.T, e *framework.Env, _ *process, api *framework.Proxy) {
			api.Slow(100 * time.Millisecond) // for each request and answer
			awaitImages(t, e, smallCrowd/3)
		},
		"cuts-connections": func(t *testing.T, e *framework.Env, _ *process, api *framework.Proxy) {
			cuts := 0
			e.Await(t, "6 connections to be cut", framework.Patience, func(context.Context) error {
				if cuts += api.Cut(); cuts < 6 {
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
			// The lease outlasts the fault, on a busy machine too.
			p := start(t, e, "--kubeconfig="+framework.ProxiedKubeconfig(t, api), "--worker-threads=1",
				"--leader-election-lease-duration=90s", "--leader-election-renew-deadline=60s")
			left := e.AwaitBound(t, e.Claim(t, "left", class))
			before := awaitRest(t, e, p)

			claims := createCrowd(t, e, class, smallCrowd)
			awaitImages(t, e, 3)
			fault(t, e, p, api)
			wantBusy(t, e, smallCrowd)
			e.DeleteClaim(t, "left")
			claims = append(claims, e.Claim(t, "meanwhile", class))
			api.Heal(t)

			e.AwaitVolumeGone(t, left)
			wantBoundOnce(t, e, claims)
			// With nothing to do, all connections are those of watches.
			awaitRest(t, e, p)
			if api.Cut() == 0 {
				t.Error("there was no watch")
			}
			wantBoundOnce(t, e, append(claims, e.Claim(t, "afterwards", class)))
			wantSameRest(t, e, p, before)
			if strings.Contains(p.Log(), "the lease was lost") {
				t.Error("the lease was lost: the fault lasted too long to show anything else")
			}
		})
	}
}

// awaitFailedRequests waits until so many more requests have failed.
func awaitFailedRequests(t *testing.T, e *framework.Env, p *process, n float64) {
	t.Helper()
	before, err := failedRequests(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	e.Await(t, fmt.Sprintf("%g failed requests", n), framework.Patience, func(ctx context.Context) error {
		now, err := failedRequests(ctx, p)
		if err == nil && now < before+n {
			err = fmt.Errorf("there were %g", now-before)
		}
		return err
	})
}

// wantBusy fails the test if a crowd has been served already.
func wantBusy(t *testing.T, e *framework.Env, crowd int) {
	t.Helper()
	volumes, err := e.Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(volumes) >= crowd {
		t.Fatalf("there are all %d volumes already: it was not busy", len(volumes))
	}
}

// TestALeaderThatIsCutOffIsReplaced: unlike one that is frozen, it goes on with what
// it has begun inside Ceph, and cannot tell anybody.
func TestALeaderThatIsCutOffIsReplaced(t *testing.T) {
	t.Parallel()
	e, api := newProxiedEnv(t)
	class := e.Class(t, "busy")
	flags := []string{"--leader-election-lease-duration=10s", "--leader-election-renew-deadline=8s", "--worker-threads=2"}
	leader := start(t, e, append(flags, "--kubeconfig="+framework.ProxiedKubeconfig(t, api))...)
	first := awaitHolder(t, e)
	standby := start(t, e, flags...)
	standby.AwaitLog(t, e, "Started waiting for the lease")
	claims := createCrowd(t, e, class, crowd)
	awaitImages(t, e, 3)
	clients := cephClients(t, e)
	api.Hang()
	wantBusy(t, e, crowd)
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
	awaitRest(t, e, standby)
}

// TestFailover tells how long nobody works when a leader goes, with the lease's
// settings as they are by default.
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
		e.AwaitBound(t, e.Claim(t, fmt.Sprintf("terminated-%d", i), class))
		took = append(took, time.Since(begun).Round(10*time.Millisecond))
		if took[i] > leaseDuration {
			t.Errorf("the next claim was bound %s after SIGTERM: the lease was not given back", took[i])
		}
		leader = standby
	}
	t.Logf("from SIGTERM of the leader to the next bound claim: %v", took)

	awaitReady(t, e, replica())
	begun := time.Now()
	leader.Kill(t)
	e.AwaitBound(t, e.Claim(t, "killed", class))
	t.Logf("from SIGKILL of the leader to the next bound claim: %s", time.Since(begun).Round(10*time.Millisecond))
}
