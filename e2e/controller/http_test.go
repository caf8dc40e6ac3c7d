//go:build e2e

package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
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
	standby.AwaitLog(t, e, "Started waiting for the lease")
	for name, p := range map[string]*process{"leader": leader, "standby": standby} {
		awaitReady(t, e, p)
		for path, want := range map[string]string{
			"/readyz": "ok", "/livez": "ok", "/healthz": "ok", "/healthz/leader-election": "ok",
			"/readyz?verbose": "[+]informers ok\n[+]ceph ok\n", "/livez?verbose": "[+]leader-election ok\n",
		} {
			if status, body := p.Get(t, path); status != http.StatusOK || body != want {
				t.Errorf("%s: %s: %d %q, want %q", name, path, status, body, want)
			}
		}
	}
	class, bad := e.Class(t, "good"), e.Class(t, "bad", framework.NoParameter("userSecretName"))
	volume := e.AwaitBound(t, e.Claim(t, "first", class))
	e.AwaitBound(t, e.Claim(t, "second", class))
	e.AwaitEvent(t, e.Claim(t, "third", bad), framework.Timeout, "ProvisioningFailed", "parameters.userSecretName: Required value")
	stop := e.Ceph.Watch(t, framework.ImageOf(volume))
	e.DeleteClaim(t, "first")
	e.AwaitEvent(t, volume, framework.Timeout, "VolumeFailedDelete")
	stop()
	e.AwaitVolumeGone(t, volume)
	wantMetrics(t, e, leader, standby, class, bad)
}

// awaitReady waits until a process is ready, as leader or standby.
func awaitReady(t *testing.T, e *framework.Env, p *process) {
	t.Helper()
	e.Await(t, "the provisioner to be ready", framework.Timeout, func(ctx context.Context) error {
		status, body, err := p.TryGet(ctx, "/readyz?verbose")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d: %s", status, body)
		}
		return err
	})
}

func wantMetrics(t *testing.T, e *framework.Env, leader, standby *process, class, bad string) {
	t.Helper()
	ofLeader, ofStandby := samples(t, leader), samples(t, standby)
	for sample, want := range map[string]float64{
		`controller_persistentvolumeclaim_provision_total{class="` + class + `",source=""}`:                  2,
		`controller_persistentvolumeclaim_provision_duration_seconds_count{class="` + class + `",source=""}`: 2,
		`rbd_provisioner_ceph_operation_duration_seconds_count{operation="create",result="ok"}`:              2,
		`rbd_provisioner_ceph_operation_duration_seconds_count{operation="update",result="ok"}`:              2,
		`rbd_provisioner_ceph_operation_duration_seconds_count{operation="trash-move",result="ok"}`:          1,
		`rbd_provisioner_ceph_operations_in_flight{operation="create"}`:                                      0,
		`rbd_provisioner_ceph_connections`:                                                                   1,
		`leader_election_master_status{name="` + e.LeaseName() + `"}`:                                        1,
	} {
		if got, found := ofLeader[sample]; !found || got != want {
			t.Errorf("the leader has %s %g (%t), want %g", sample, got, found, want)
		}
	}
	if got, found := ofStandby[`leader_election_master_status{name="`+e.LeaseName()+`"}`]; !found || got != 0 {
		t.Errorf("the standby reports a leader status of %g (%t), want 0", got, found)
	}
	// The library counts failures of each attempt, and deletions also after the volume is gone,
	// sometimes twice.
	for _, sample := range []string{
		`controller_persistentvolumeclaim_provision_failed_total{class="` + bad + `",source=""}`,
		`controller_persistentvolume_delete_failed_total{class="` + class + `"}`,
		`controller_persistentvolume_delete_total{class="` + class + `"}`,
	} {
		e.Await(t, sample, framework.Timeout, func(context.Context) error {
			if samples(t, leader)[sample] < 1 {
				return errors.New("it is less than 1")
			}
			return nil
		})
	}
	_, text := leader.Get(t, "/metrics")
	for _, name := range documentedMetrics(t) {
		if !strings.Contains(text, "\n# TYPE "+name+" ") {
			t.Errorf("the leader's metrics lack the documented %s", name)
		}
	}
}

// samples returns the metrics of a process, by name and labels.
func samples(t *testing.T, p *process) map[string]float64 {
	t.Helper()
	values, err := samplesOf(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// samplesOf is samples with an error.
func samplesOf(ctx context.Context, p *process) (map[string]float64, error) {
	_, text, err := p.TryGet(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for _, line := range strings.Split(text, "\n") {
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		values[line[:i]] = value
	}
	return values, nil
}

// documentedMetrics returns the names of the provisioner's metrics in the documentation.
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
