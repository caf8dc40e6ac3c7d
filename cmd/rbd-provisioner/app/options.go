package app

import (
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/leadership"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
)

// Options are the parsed command line.
type Options struct {
	ProvisionerName string
	ClusterID       string
	WorkerThreads   int
	// Timeout limits one operation on a claim or volume.
	Timeout            time.Duration
	RetryIntervalStart time.Duration
	RetryIntervalMax   time.Duration
	ResyncPeriod       time.Duration
	OrphanGrace        time.Duration
	// PredecessorIdentities are identities of the retired rbd-provisioner. Its volumes with one of them, or
	// with ProvisionerName, are managed.
	PredecessorIdentities []string

	Kubeconfig   string
	Master       string
	KubeAPIQPS   float32
	KubeAPIBurst int

	LeaderElection leadership.Options

	HTTPEndpoint string
	MetricsPath  string
	EnablePprof  bool

	Logging *logsapi.LoggingConfiguration
	Version bool
}

// NewOptions returns the defaults, which suit one whole cluster. This is the only place with defaults.
// Environment variables override some of them, as described in the help of the flags.
func NewOptions() *Options {
	return &Options{
		ProvisionerName:    envOr("PROVISIONER_NAME", provisioner.DefaultName),
		WorkerThreads:      100,
		Timeout:            30 * time.Second,
		RetryIntervalStart: time.Second,
		RetryIntervalMax:   time.Minute,
		ResyncPeriod:       15 * time.Minute,
		OrphanGrace:        time.Minute,
		Kubeconfig:         os.Getenv("KUBECONFIG"),
		KubeAPIQPS:         300,
		KubeAPIBurst:       600,
		LeaderElection: leadership.Options{
			Enabled:       true,
			Namespace:     envOr("POD_NAMESPACE", serviceAccountNamespace()),
			LeaseDuration: 15 * time.Second,
			RenewDeadline: 10 * time.Second,
			RetryPeriod:   500 * time.Millisecond,
		},
		HTTPEndpoint: ":8080",
		MetricsPath:  "/metrics",
		Logging:      logsapi.NewLoggingConfiguration(),
	}
}

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// serviceAccountNamespace returns the namespace of the pod's service account, or "default" outside a pod.
func serviceAccountNamespace() string {
	data, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return "default"
	}
	return strings.TrimSpace(string(data))
}

// Flags returns the flags in named sections. They have the names of external-provisioner's flags, if it
// has such a flag.
func (o *Options) Flags() cliflag.NamedFlagSets {
	var sections cliflag.NamedFlagSets
	fs := sections.FlagSet("provisioning")
	fs.StringVar(&o.ProvisionerName, "provisioner-name", o.ProvisionerName, "Name of this provisioner in StorageClasses. Environment: PROVISIONER_NAME.")
	fs.StringVar(&o.ClusterID, "cluster-id", o.ClusterID, "ID of this Kubernetes cluster, which distinguishes its images from those of other clusters in the same pool. If empty, the UID of the namespace kube-system.")
	fs.IntVar(&o.WorkerThreads, "worker-threads", o.WorkerThreads, "Number of concurrent operations of each kind: provisioning, deletion and expansion. In each pool, at most 16 operations run concurrently. At least 1.")
	fs.DurationVar(&o.Timeout, "timeout", o.Timeout, "Time after which an operation on a claim or volume fails with a timeout. It continues in the background and is retried. Each of its calls of Ceph has half of this time. At least 2s.")
	fs.DurationVar(&o.RetryIntervalStart, "retry-interval-start", o.RetryIntervalStart, "Delay before the first retry of a claim or volume. It doubles with each failure.")
	fs.DurationVar(&o.RetryIntervalMax, "retry-interval-max", o.RetryIntervalMax, "Maximum delay between two retries of a claim or volume.")
	fs.DurationVar(&o.ResyncPeriod, "resync-period", o.ResyncPeriod, "Interval at which all claims and volumes are processed again without a change. 0 disables it.")
	fs.DurationVar(&o.OrphanGrace, "orphan-grace", o.OrphanGrace, "Time after which an orphaned image is removed: an image of this provisioner that has no claim, no volume and no data. All images are scanned at ten times this interval. 0 disables the removal, also of unused snapshots for clones.")

	fs.StringSliceVar(&o.PredecessorIdentities, "predecessor-identity", o.PredecessorIdentities, "Identity (flag -id) of a retired rbd-provisioner whose volumes are deleted, expanded and cloned. Needed only if it is not the provisioner's name. Can be repeated.")

	fs = sections.FlagSet("kubernetes")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "Path of a kubeconfig file. Needed only outside the cluster. Environment: KUBECONFIG.")
	fs.StringVar(&o.Master, "master", o.Master, "Address of the Kubernetes API server. Overrides the address in the kubeconfig.")
	fs.Float32Var(&o.KubeAPIQPS, "kube-api-qps", o.KubeAPIQPS, "Maximum rate of requests to the Kubernetes API server, per second. Greater than 0.")
	fs.IntVar(&o.KubeAPIBurst, "kube-api-burst", o.KubeAPIBurst, "Maximum burst of requests to the Kubernetes API server. At least 1.")

	o.LeaderElection.AddFlags(sections.FlagSet("leader election"))

	fs = sections.FlagSet("HTTP")
	fs.StringVar(&o.HTTPEndpoint, "http-endpoint", o.HTTPEndpoint, "Address of the HTTP server for metrics and health, for example :8080. If empty, the server is disabled.")
	fs.StringVar(&o.MetricsPath, "metrics-path", o.MetricsPath, "HTTP path of the metrics. The paths of health are /livez, /readyz and /healthz/leader-election.")
	fs.BoolVar(&o.EnablePprof, "enable-pprof", o.EnablePprof, "Serve the profiles of Go at /debug/pprof/.")

	logsapi.AddFlags(o.Logging, sections.FlagSet("logging"))
	sections.FlagSet("other").BoolVar(&o.Version, "version", o.Version, "Print the version and exit.")
	return sections
}

// Validate returns all errors of the options.
func (o *Options) Validate() field.ErrorList {
	var errs field.ErrorList
	require := func(ok bool, flag string, value any, why string) {
		if !ok {
			errs = append(errs, field.Invalid(field.NewPath("--"+flag), value, why))
		}
	}
	nameErrs := validation.IsQualifiedName(o.ProvisionerName)
	require(len(nameErrs) == 0, "provisioner-name", o.ProvisionerName, strings.Join(nameErrs, "; "))
	require(!foreignName(o.ProvisionerName), "provisioner-name", o.ProvisionerName,
		"must not be the name of a provisioner of Kubernetes or ceph-csi, which would manage the same volumes")
	require(o.WorkerThreads >= 1, "worker-threads", o.WorkerThreads, "must be at least 1")
	require(o.Timeout >= 2*time.Second, "timeout", o.Timeout.String(), "must be at least 2s")
	require(o.RetryIntervalStart > 0, "retry-interval-start", o.RetryIntervalStart.String(), "must be positive")
	require(o.RetryIntervalMax >= o.RetryIntervalStart, "retry-interval-max", o.RetryIntervalMax.String(), "must not be less than --retry-interval-start")
	require(o.ResyncPeriod >= 0, "resync-period", o.ResyncPeriod.String(), "must not be negative")
	require(o.OrphanGrace >= 0, "orphan-grace", o.OrphanGrace.String(), "must not be negative")
	require(o.KubeAPIQPS > 0, "kube-api-qps", o.KubeAPIQPS, "must be greater than 0")
	require(o.KubeAPIBurst >= 1, "kube-api-burst", o.KubeAPIBurst, "must be at least 1")
	require(metricsPath.MatchString(o.MetricsPath) && !reservedPath.MatchString(o.MetricsPath), "metrics-path", o.MetricsPath,
		"must be a plain path such as /metrics, and not a path of health or profiles")
	if o.HTTPEndpoint != "" {
		_, _, err := net.SplitHostPort(o.HTTPEndpoint)
		require(err == nil, "http-endpoint", o.HTTPEndpoint, "must be host:port or :port")
	}
	if o.LeaderElection.Enabled {
		leaseErrs := validation.IsDNS1123Subdomain(leadership.LeaseName(o.ProvisionerName))
		require(len(nameErrs) > 0 || len(leaseErrs) == 0, "provisioner-name", o.ProvisionerName,
			"with --leader-election, the name with \"-\" for \"/\" must be a valid lease name: "+strings.Join(leaseErrs, "; "))
		errs = append(errs, o.LeaderElection.Validate()...)
	}
	return errs
}

// Paths without special characters of http.ServeMux, and paths that are served already.
var (
	metricsPath  = regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`)
	reservedPath = regexp.MustCompile(`^/(livez|readyz|healthz(/.*)?|debug/pprof(/.*)?)$`)
)

// foreignName reports whether other controllers manage the volumes of this provisioner name.
func foreignName(name string) bool {
	return strings.HasPrefix(name, "kubernetes.io/") || name == "rbd.csi.ceph.com"
}
