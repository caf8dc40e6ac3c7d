//go:build e2e

package controller

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestADeadClusterStopsNobodyElse creates more claims of an unresponsive cluster than the
// provisioner has workers, and then claims of a responsive one.
func TestADeadClusterStopsNobodyElse(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	p := start(t, e, "--worker-threads=8")
	dead := e.Class(t, "dead", framework.Parameter("monitors", unresponsiveMonitor(t)))
	alive := e.Class(t, "alive")
	var waiting []*corev1.PersistentVolumeClaim
	for i := range 16 {
		waiting = append(waiting, e.Claim(t, fmt.Sprintf("dead-%d", i), dead))
	}
	e.AwaitEvent(t, waiting[0], framework.Timeout, "Provisioning")
	begun := time.Now()
	for i := range 5 {
		e.AwaitVolume(t, e.Claim(t, fmt.Sprintf("alive-%d", i), alive, framework.AssignedTo(e.Provisioner)), 3*operationTimeout)
	}
	t.Logf("five volumes were created one after the other within %s", time.Since(begun).Round(time.Millisecond))
	for _, claim := range waiting {
		e.AwaitEvent(t, claim, framework.Timeout, "ProvisioningFailed", "Ceph cluster cannot be reached")
		e.WantImage(t, e.ImageFor(claim), false)
	}
	if _, body := p.Get(t, "/livez?verbose"); body == "" {
		t.Error("/livez returned no text")
	}
}

// unresponsiveMonitor accepts connections and never sends anything, like a hanging host.
func unresponsiveMonitor(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go func() {
					_, _ = io.Copy(io.Discard, conn)
					_ = conn.Close()
				}()
			}
		}
	}()
	return listener.Addr().String()
}
