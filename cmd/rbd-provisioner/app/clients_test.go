package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAMissingKubeconfigIsAnError(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.Kubeconfig = filepath.Join(t.TempDir(), "lost")
	if _, err := newClients(opts); err == nil || !errors.Is(err, os.ErrNotExist) ||
		!strings.HasPrefix(err.Error(), "configure the Kubernetes client (outside a cluster, set --kubeconfig): ") {
		t.Errorf("error %v", err)
	}
}

func TestWorkAndLeaseHaveSeparateRateLimits(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.Master = "http://127.0.0.1:1"
	opts.KubeAPIQPS = 3
	clients, err := newClients(opts)
	if err != nil {
		t.Fatal(err)
	}
	work, lease := clients.work.CoreV1().RESTClient().GetRateLimiter(), clients.lease.CoordinationV1().RESTClient().GetRateLimiter()
	if work == lease || work.QPS() != 3 || lease.QPS() == 3 {
		t.Errorf("the work could delay renewals of the lease: %v, %v requests per second", work.QPS(), lease.QPS())
	}
	if other := clients.work.StorageV1().RESTClient().GetRateLimiter(); other != work {
		t.Error("the rate limit is per API group, want one for all groups")
	}
}
