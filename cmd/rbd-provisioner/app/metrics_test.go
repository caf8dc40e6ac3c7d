package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/client-go/util/workqueue"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// used returns metrics with a value each, because metrics without a value are not gathered.
func used() *metrics {
	m := newMetrics()
	m.observe("create")(nil)
	m.connectionsChanged(1)
	m.library.PersistentVolumeClaimProvisionTotal.WithLabelValues("rbd", "")
	m.library.PersistentVolumeClaimProvisionFailedTotal.WithLabelValues("rbd", "")
	m.library.PersistentVolumeClaimProvisionDurationSeconds.WithLabelValues("rbd", "")
	m.library.PersistentVolumeDeleteTotal.WithLabelValues("rbd")
	m.library.PersistentVolumeDeleteFailedTotal.WithLabelValues("rbd")
	m.library.PersistentVolumeDeleteDurationSeconds.WithLabelValues("rbd")
	return m
}

// families gathers the metrics with one of the prefixes.
func families(t *testing.T, g prometheus.Gatherer, prefixes ...string) []*dto.MetricFamily {
	t.Helper()
	all, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(f.GetName(), p) })
	})
}

func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	var list strings.Builder
	for _, family := range families(t, used().registry, "rbd_provisioner_", "controller_") {
		fmt.Fprintf(&list, "%s %s\n", family.GetName(), strings.ToLower(family.GetType().String()))
		var labels []string
		for _, label := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, label.GetName())
		}
		if len(labels) > 0 {
			fmt.Fprintf(&list, "  labels: %s\n", strings.Join(labels, ", "))
		}
		fmt.Fprintf(&list, "  %s\n", family.GetHelp())
	}
	golden(t, "metrics.txt", []byte(list.String()))
}

func TestMetricsOfKubernetesPackagesAreServed(t *testing.T) {
	t.Parallel()
	// The metrics of a queue exist only after it was used.
	queue := workqueue.NewNamedRateLimitingQueue(workqueue.DefaultControllerRateLimiter(), "claims")
	queue.Add("1e7f")
	queue.ShutDown()
	for _, prefix := range []string{"workqueue_depth", "go_goroutines", "process_start_time_seconds"} {
		if len(families(t, newMetrics().registry, prefix)) == 0 {
			t.Errorf("no metric begins with %s", prefix)
		}
	}
}

func TestMetricsFollowPrometheusRules(t *testing.T) {
	t.Parallel()
	problems, err := testutil.GatherAndLint(ownMetrics{used().registry})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// ownMetrics gathers the metrics that this program names.
type ownMetrics struct{ prometheus.Gatherer }

func (o ownMetrics) Gather() ([]*dto.MetricFamily, error) {
	all, err := o.Gatherer.Gather()
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool {
		return !strings.HasPrefix(f.GetName(), "rbd_provisioner_")
	}), err
}

func TestOperationsAreMeasured(t *testing.T) {
	t.Parallel()
	m := newMetrics()
	wantInFlight := func(want float64) {
		t.Helper()
		if got := testutil.ToFloat64(m.inFlight.WithLabelValues("create")); got != want {
			t.Errorf("%v in flight, want %v", got, want)
		}
	}
	first, second := m.observe("create"), m.observe("create")
	wantInFlight(2)
	first(nil)
	wantInFlight(1)
	second(fmt.Errorf("create image kube/x: %w", rbdutil.ErrTimeout))
	wantInFlight(0)
	m.observe("remove")(errors.New("odd"))

	got := map[string]uint64{}
	for _, family := range families(t, m.registry, "rbd_provisioner_ceph_operation_duration_seconds") {
		for _, metric := range family.GetMetric() {
			got[metric.GetLabel()[0].GetValue()+" "+metric.GetLabel()[1].GetValue()] = metric.GetHistogram().GetSampleCount()
		}
	}
	if diff := cmp.Diff(map[string]uint64{"create ok": 1, "create timeout": 1, "remove error": 1}, got); diff != "" {
		t.Errorf("operations by result (-want +got):\n%s", diff)
	}
}

func TestConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	m := newMetrics()
	for _, n := range []int{1, 3, 0} {
		m.connectionsChanged(n)
		if got := testutil.ToFloat64(m.conns); got != float64(n) {
			t.Errorf("%v connections, want %d", got, n)
		}
	}
}

func TestOrphansAreCounted(t *testing.T) {
	t.Parallel()
	m := newMetrics()
	for _, n := range []int{1, 3, 0} {
		m.orphansChanged(n)
		if got := testutil.ToFloat64(m.orphans); got != float64(n) {
			t.Errorf("%v orphans, want %d", got, n)
		}
	}
}

func TestResultLabels(t *testing.T) {
	t.Parallel()
	for want, errs := range map[string][]error{
		"ok":              {nil},
		"image_exists":    {rbdutil.ErrImageExists},
		"image_not_found": {rbdutil.ErrImageNotFound},
		"image_in_use":    {rbdutil.ErrImageInUse},
		"has_snapshots":   {rbdutil.ErrHasSnapshots},
		"has_clones":      {rbdutil.ErrHasClones},
		"in_group":        {rbdutil.ErrInGroup},
		"locked":          {rbdutil.ErrLocked},
		"mirrored":        {rbdutil.ErrMirrored},
		"migrating":       {rbdutil.ErrMigrating},
		"changed":         {rbdutil.ErrChanged},
		"foreign_image":   {rbdutil.ErrForeignImage},
		"not_expired":     {rbdutil.ErrNotExpired},
		"pool_not_found":  {rbdutil.ErrPoolNotFound, rbdutil.ErrDataPoolNotFound},
		"denied":          {rbdutil.ErrAccessDenied, rbdutil.ErrInvalidKey},
		"unreachable":     {rbdutil.ErrUnreachable, rbdutil.ErrUnknownMonitor, rbdutil.ErrConnectionLost},
		"timeout":         {rbdutil.ErrTimeout},
		"blocklisted":     {rbdutil.ErrBlocklisted},
		"not_fenced":      {rbdutil.ErrNotFenced},
		"no_space":        {rbdutil.ErrNoSpace},
		"error":           {rbdutil.ErrInvalid, errors.New("odd")},
	} {
		for _, err := range errs {
			if err != nil {
				err = fmt.Errorf("create image kube/x: %w", err)
			}
			if got := provisioner.Result(err); got != want {
				t.Errorf("Result(%v) = %q, want %q", err, got, want)
			}
		}
	}
}
