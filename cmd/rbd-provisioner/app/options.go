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

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
)

// Options are the command line, parsed.
type Options struct {
	ProvisionerName string
	ClusterID       string
	WorkerThreads   int
	// Timeout bounds one operation as its claim or volume sees it.
	Timeout            time.Duration
	RetryIntervalStart time.Duration
	RetryIntervalMax   time.Duration
	ResyncPeriod       time.Duration
	OrphanGrace        time.Duration
	// PredecessorIdentities are those of the retired rbd-provisioner whose volumes are
	// served, beside ProvisionerName.
	PredecessorIdentities []string

	Kubeconfig   string
	Master       string
	KubeAPIQPS   float32
	KubeAPIBurst int

	LeaderElection LeaderElectionOptions

	HTTPEndpoint string
	MetricsPath  string
	EnablePprof  bool

	Logging *logsapi.LoggingConfiguration
	Version bool
}

// LeaderElectionOptions are the flags that begin with leader-election.
type LeaderElectionOptions struct {
	Enabled       bool
	Namespace     string
	LeaseDuration time.Duration
	RenewDeadline time.Duration
	RetryPeriod   time.Duration
}

// minRequestTimeout is the least time in which an API server can be expected to answer.
const minRequestTimeout = 100 * time.Millisecond

// requestTimeout bounds one request for the lease. It leaves time for other attempts before the
// renew deadline, and keeps lossNoticed below the lease duration.
func (o LeaderElectionOptions) requestTimeout() time.Duration {
	return min(o.RenewDeadline/4, (o.LeaseDuration-o.RenewDeadline-o.RetryPeriod)/2)
}

// lossNoticed is the longest time from sending the last successful renewal until client-go notices
// that the lease is lost: the answer takes requestTimeout at most, the next renewal begins
// RetryPeriod after the answer and ends RenewDeadline later. Others lead LeaseDuration after they
// have seen the renewal, and so after it was sent. Therefore this must be less than LeaseDuration.
func (o LeaderElectionOptions) lossNoticed() time.Duration {
	return o.requestTimeout() + o.RetryPeriod + o.RenewDeadline
}

// NewOptions returns the defaults, made for one whole cluster. They live here and
// nowhere else; the environment may set some, as the flags' help says.
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
		LeaderElection: LeaderElectionOptions{
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

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// serviceAccountNamespace is the namespace in which the pod runs, as its service
// account says, or "default" outside a pod.
func serviceAccountNamespace() string {
	data, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return "default"
	}
	return strings.TrimSpace(string(data))
}

// Flags returns the flags, in named sections, over the options. Their names are
// those of external-provisioner where it has them.
func (o *Options) Flags() cliflag.NamedFlagSets {
	var sections cliflag.NamedFlagSets
	fs := sections.FlagSet("provisioning")
	fs.StringVar(&o.ProvisionerName, "provisioner-name", o.ProvisionerName, "Name by which StorageClasses call this provisioner. Environment: PROVISIONER_NAME.")
	fs.StringVar(&o.ClusterID, "cluster-id", o.ClusterID, "What tells this Kubernetes cluster's images from another's in the same pool. If empty, the UID of the namespace kube-system.")
	fs.IntVar(&o.WorkerThreads, "worker-threads", o.WorkerThreads, "How many claims are provisioned, how many volumes deleted, and how many expanded, at a time. Of one pool, no more than 16 are. At least 1.")
	fs.DurationVar(&o.Timeout, "timeout", o.Timeout, "When a claim or volume is told that Ceph has not answered. Ceph itself is given half of it for each call. At least 2s.")
	fs.DurationVar(&o.RetryIntervalStart, "retry-interval-start", o.RetryIntervalStart, "Pause before the first retry of a claim or volume. It doubles with each failure.")
	fs.DurationVar(&o.RetryIntervalMax, "retry-interval-max", o.RetryIntervalMax, "Longest pause between two retries of a claim or volume.")
	fs.DurationVar(&o.ResyncPeriod, "resync-period", o.ResyncPeriod, "How often all claims and volumes are looked at again without a change.")
	fs.DurationVar(&o.OrphanGrace, "orphan-grace", o.OrphanGrace, "How long an image of ours that holds no data must have been without claim and volume before it is removed. All are looked at every ten times as long. 0 for never; then snapshots for clones that were never made stay, too.")

	fs.StringSliceVar(&o.PredecessorIdentities, "predecessor-identity", o.PredecessorIdentities, "Identity (its flag -id) of a retired rbd-provisioner whose volumes are deleted, expanded and cloned, if it is not the provisioner's name. May be given several times.")

	fs = sections.FlagSet("kubernetes")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "Path of a kubeconfig file; only outside the cluster. Environment: KUBECONFIG.")
	fs.StringVar(&o.Master, "master", o.Master, "Address of the Kubernetes API server, in place of the kubeconfig's.")
	fs.Float32Var(&o.KubeAPIQPS, "kube-api-qps", o.KubeAPIQPS, "Requests a second to the Kubernetes API server, over time. Greater than 0.")
	fs.IntVar(&o.KubeAPIBurst, "kube-api-burst", o.KubeAPIBurst, "Requests to the Kubernetes API server at once. At least 1.")

	o.LeaderElection.addFlags(&sections)

	fs = sections.FlagSet("http")
	fs.StringVar(&o.HTTPEndpoint, "http-endpoint", o.HTTPEndpoint, "Address on which metrics and health are served, such as :8080. Empty for none.")
	fs.StringVar(&o.MetricsPath, "metrics-path", o.MetricsPath, "Path of the metrics. Health is at /livez, /readyz and /healthz/leader-election.")
	fs.BoolVar(&o.EnablePprof, "enable-pprof", o.EnablePprof, "Serve Go's profiles at /debug/pprof/.")

	logsapi.AddFlags(o.Logging, sections.FlagSet("logging"))
	sections.FlagSet("other").BoolVar(&o.Version, "version", o.Version, "Print the version and exit.")
	return sections
}

func (o *LeaderElectionOptions) addFlags(sections *cliflag.NamedFlagSets) {
	fs := sections.FlagSet("leader election")
	fs.BoolVar(&o.Enabled, "leader-election", o.Enabled, "Work only while holding the lease, so that several replicas may run. Without it, nothing keeps two processes from working at once.")
	fs.StringVar(&o.Namespace, "leader-election-namespace", o.Namespace, "Namespace of the lease. Environment: POD_NAMESPACE; else the pod's own.")
	fs.DurationVar(&o.LeaseDuration, "leader-election-lease-duration", o.LeaseDuration, "How long others wait for a leader that does not renew its lease. Whole seconds, at least 200ms more than the renew deadline and the retry period together.")
	fs.DurationVar(&o.RenewDeadline, "leader-election-renew-deadline", o.RenewDeadline, "When a leader that cannot renew its lease exits. At least 400ms.")
	fs.DurationVar(&o.RetryPeriod, "leader-election-retry-period", o.RetryPeriod, "Pause between attempts to get or renew the lease.")
}

// Validate returns all that is wrong with the options.
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
		"this name belongs to a provisioner of Kubernetes or of ceph-csi, which would take our volumes for its own")
	require(o.WorkerThreads >= 1, "worker-threads", o.WorkerThreads, "must be at least 1")
	require(o.Timeout >= 2*time.Second, "timeout", o.Timeout.String(), "must be at least 2s")
	require(o.RetryIntervalStart > 0, "retry-interval-start", o.RetryIntervalStart.String(), "must be positive")
	require(o.RetryIntervalMax >= o.RetryIntervalStart, "retry-interval-max", o.RetryIntervalMax.String(), "must not be less than --retry-interval-start")
	require(o.ResyncPeriod >= 0, "resync-period", o.ResyncPeriod.String(), "must not be negative")
	require(o.OrphanGrace >= 0, "orphan-grace", o.OrphanGrace.String(), "must not be negative")
	require(o.KubeAPIQPS > 0, "kube-api-qps", o.KubeAPIQPS, "must be greater than 0")
	require(o.KubeAPIBurst >= 1, "kube-api-burst", o.KubeAPIBurst, "must be at least 1")
	require(metricsPath.MatchString(o.MetricsPath) && !ownPath.MatchString(o.MetricsPath), "metrics-path", o.MetricsPath,
		"must be a plain path such as /metrics, and not one of health or profiles")
	if o.HTTPEndpoint != "" {
		_, _, err := net.SplitHostPort(o.HTTPEndpoint)
		require(err == nil, "http-endpoint", o.HTTPEndpoint, "must be host:port or :port")
	}
	if le := o.LeaderElection; le.Enabled {
		require(le.Namespace != "", "leader-election-namespace", le.Namespace, "must not be empty")
		leaseErrs := validation.IsDNS1123Subdomain(leaseName(o.ProvisionerName))
		require(len(nameErrs) > 0 || len(leaseErrs) == 0, "provisioner-name", o.ProvisionerName,
			"with --leader-election, \"-\" for \"/\" must make it the name of a lease: "+strings.Join(leaseErrs, "; "))
		require(le.RetryPeriod > 0, "leader-election-retry-period", le.RetryPeriod.String(), "must be positive")
		require(le.RenewDeadline > le.RetryPeriod*6/5 && le.RenewDeadline >= 4*minRequestTimeout,
			"leader-election-renew-deadline", le.RenewDeadline.String(),
			"must be at least 400ms, and more than 1.2 times --leader-election-retry-period")
		// Each of the three may be right alone. The Lease has whole seconds; client-go cuts off the rest.
		require(le.LeaseDuration%time.Second == 0 && le.LeaseDuration >= le.RenewDeadline+le.RetryPeriod+2*minRequestTimeout,
			"leader-election-lease-duration", le.LeaseDuration.String(),
			"must be whole seconds, and at least 200ms more than --leader-election-renew-deadline and --leader-election-retry-period together")
	}
	return errs
}

// A path that the HTTP server takes literally, and those that it serves anyway.
var (
	metricsPath = regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`)
	ownPath     = regexp.MustCompile(`^/(livez|readyz|healthz(/.*)?|debug/pprof(/.*)?)$`)
)

// foreignName tells whether others act on volumes that bear the name.
func foreignName(name string) bool {
	return strings.HasPrefix(name, "kubernetes.io/") || name == "rbd.csi.ceph.com"
}
