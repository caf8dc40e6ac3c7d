//go:build e2e

package controller

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/e2e/lab"
)

// TestTheAPIServerIsRestarted kills the API server while many claims are created. It is not
// parallel, because other tests need the API server.
func TestTheAPIServerIsRestarted(t *testing.T) {
	name := os.Getenv("RBD_LAB")
	if name == "" {
		t.Skip("only a lab's API server may be killed")
	}
	l, err := lab.Open(name, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Daemon("kube-apiserver")
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t)
	class := e.Class(t, "busy")
	p := start(t, e, "--worker-threads=2")
	e.AwaitBound(t, e.Claim(t, "before", class))
	before := awaitIdle(t, e, p)
	claims := createClaims(t, e, class, manyClaims)
	awaitImages(t, e, 3)
	wantBusy(t, e, manyClaims)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	awaitFailedRequests(t, e, p, 5)
	if err := server.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	e.Await(t, "the API server to be ready", framework.Timeout, func(ctx context.Context) error {
		return e.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	t.Logf("the API server was down for %s", time.Since(killed).Round(time.Millisecond))
	// While it started, it had not loaded its roles and rejected requests as forbidden.
	p.MayBeForbidden = true
	thisRun.addRestart(killed, time.Now())
	wantBoundOnce(t, e, append(claims, e.GetClaim(t, "before"), e.Claim(t, "afterwards", class)))
	wantSameIdleState(t, e, p, before)
}
