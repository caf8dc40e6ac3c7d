//go:build e2e

package controller

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

func TestHealthAndMetrics(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	leader := start(t, e)
	awaitHolder(t, e)
	standby := start(t, e)
	standby.awaitLog(t, e, "Waiting to lead")
	for name, p := range map[string]*process{"leader": leader, "standby": standby} {
		e.Await(t, name+" to be ready", framework.Patience, func(ctx context.Context) error {
			status, body, err := p.tryGet(ctx, "/readyz?verbose")
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("%d: %s", status, body)
			}
			return err
		})
		for path, want := range map[string]string{
			"/readyz": "ok", "/livez": "ok", "/healthz": "ok", "/healthz/leader-election": "ok",
			"/readyz?verbose": "[+]informers ok\n", "/livez?verbose": "[+]leader-election ok\n",
		} {
			if status, body := p.get(t, path); status != http.StatusOK || body != want {
				t.Errorf("%s: %s: %d %q, want %q", name, path, status, body, want)
			}
		}
	}
	class, bad := e.Class(t, "good"), e.Class(t, "bad", framework.NoParameter("userSecretName"))
	volume := e.AwaitBound(t, e.Claim(t, "first", class))
	e.AwaitBound(t, e.Claim(t, "second", class))
	e.AwaitEvent(t, e.Claim(t, "third", bad), operationTimeout, "ProvisioningFailed", "parameters.userSecretName: Required value")
	e.DeleteClaim(t, "first")
	e.AwaitVolumeGone(t, volume)
	wantMetrics(t, e, leader, standby, class, bad)
}

func wantMetrics(t *testing.T, e *framework.Env, leader, standby *process, class, bad string) {
	t.Helper()
	_, ofLeader := leader.get(t, "/metrics")
	_, ofStandby := standby.get(t, "/metrics")
	for _, sample := range []string{
		`controller_persistentvolumeclaim_provision_total{class="` + class + `",source=""} 2`,
		`controller_persistentvolumeclaim_provision_duration_seconds_count{class="` + class + `",source=""} 2`,
		`controller_persistentvolume_delete_total{class="` + class + `"} 1`,
		`rbd_provisioner_ceph_operation_duration_seconds_count{operation="create",result="ok"} 2`,
		`rbd_provisioner_ceph_operation_duration_seconds_count{operation="complete",result="ok"} 2`,
		`rbd_provisioner_ceph_operation_duration_seconds_count{operation="remove",result="ok"} 1`,
		`rbd_provisioner_ceph_operations_in_flight{operation="create"} 0`,
		`rbd_provisioner_ceph_connections 1`,
		`leader_election_master_status{name="` + leaseName(e) + `"} 1`,
	} {
		if !strings.Contains(ofLeader, "\n"+sample+"\n") {
			t.Errorf("the leader's metrics lack %s", sample)
		}
	}
	if failed := `controller_persistentvolumeclaim_provision_failed_total{class="` + bad + `",source=""} `; !strings.Contains(ofLeader, "\n"+failed) {
		t.Errorf("the leader's metrics lack %s", failed)
	}
	if want := `leader_election_master_status{name="` + leaseName(e) + `"} 0`; !strings.Contains(ofStandby, "\n"+want+"\n") {
		t.Errorf("the standby's metrics lack %s", want)
	}
	for _, name := range documentedMetrics(t) {
		if !strings.Contains(ofLeader, "\n# TYPE "+name+" ") {
			t.Errorf("the leader's metrics lack %s, which the documentation has", name)
		}
	}
}

// documentedMetrics are the names of our own metrics that the documentation lists.
func documentedMetrics(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("../../docs/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, line := range strings.Split(string(data), "\n") {
		// Labels and help are indented.
		if name, _, _ := strings.Cut(line, " "); name != "" {
			names = append(names, name)
		}
	}
	if len(names) < 10 {
		t.Errorf("the documentation lists %d metrics", len(names))
	}
	return names
}
