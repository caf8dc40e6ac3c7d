package app

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/clientgo/leaderelection" // leader_election_*
	_ "k8s.io/component-base/metrics/prometheus/restclient"              // rest_client_*
	_ "k8s.io/component-base/metrics/prometheus/workqueue"               // workqueue_*
	librarymetrics "sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller/metrics"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
)

// namespace is the prefix of the metrics of this program.
const namespace = "rbd_provisioner"

// metrics has the metrics of Ceph, of the library and of client-go.
type metrics struct {
	library   librarymetrics.Metrics
	registry  prometheus.Gatherer
	durations *prometheus.HistogramVec
	inFlight  *prometheus.GaugeVec
	conns     prometheus.Gauge
	orphans   prometheus.Gauge
	fenced    *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		library: librarymetrics.New("controller"),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "ceph_operation_duration_seconds",
			Help:    "Duration of operations in Ceph, by operation and result.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600},
		}, []string{"operation", "result"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Name: "ceph_operations_in_flight",
			Help: "Number of operations that are running in Ceph, including those whose caller has timed out.",
		}, []string{"operation"}),
		conns: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Name: "ceph_connections",
			Help: "Number of connections to Ceph clusters, one for each combination of monitors, user and key.",
		}),
	}
	m.orphans = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "orphaned_images",
		Help: "Number of images with data, but without a claim and a volume. They are not removed. Events OrphanedImage name them.",
	})
	m.fenced = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "fenced_clients_total",
		Help: "Total number of Ceph clients of earlier leaders, and of dropped connections of this process, by result: fenced (blocklisted) or refused (missing capability).",
	}, []string{"result"})
	for _, result := range []string{"fenced", "refused"} {
		m.fenced.WithLabelValues(result)
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "Always 1. The labels are the versions of this program and of Go.",
	}, []string{"version", "go_version"})
	build.WithLabelValues(version, runtime.Version()).Set(1)

	// Not the default registry, so that each test can create its own metrics. The legacy registry has the
	// metrics of the Kubernetes packages, the Go runtime and the process.
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.durations, m.inFlight, m.conns, m.orphans, m.fenced, build,
		// The library registers its metrics only if it serves them.
		m.library.PersistentVolumeClaimProvisionTotal,
		m.library.PersistentVolumeClaimProvisionFailedTotal,
		m.library.PersistentVolumeClaimProvisionDurationSeconds,
		m.library.PersistentVolumeDeleteTotal,
		m.library.PersistentVolumeDeleteFailedTotal,
		m.library.PersistentVolumeDeleteDurationSeconds,
	)
	m.registry = prometheus.Gatherers{registry, legacyregistry.DefaultGatherer}
	return m
}

// observe measures one operation in Ceph. The caller must call the returned function at its end.
func (m *metrics) observe(operation string) func(error) {
	start := time.Now()
	m.inFlight.WithLabelValues(operation).Inc()
	return func(err error) {
		m.inFlight.WithLabelValues(operation).Dec()
		m.durations.WithLabelValues(operation, provisioner.Result(err)).Observe(time.Since(start).Seconds())
	}
}

func (m *metrics) connectionsChanged(n int) { m.conns.Set(float64(n)) }

func (m *metrics) orphansChanged(n int) { m.orphans.Set(float64(n)) }

func (m *metrics) clientsFenced(result string, n int) {
	m.fenced.WithLabelValues(result).Add(float64(n))
}
