package app

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/leadership"
)

func TestValidateOptions(t *testing.T) {
	t.Parallel()
	const (
		foreign  = "must not be the name of a provisioner of Kubernetes or ceph-csi, which would manage the same volumes"
		path     = "must be a plain path such as /metrics, and not a path of health or profiles"
		endpoint = "must be host:port or :port"
		renewal  = "must be at least 400ms, and more than 1.2 times --leader-election-retry-period"
		duration = "must be whole seconds, and at least 200ms more than --leader-election-renew-deadline plus --leader-election-retry-period"
	)
	for name, test := range map[string]struct {
		change func(*Options)
		want   string // FLAG: VALUE: WHY, or its beginning with … at the end
	}{
		"the defaults": {func(*Options) {}, ""},

		"another name":                         {func(o *Options) { o.ProvisionerName = "example.com/rbd-fast" }, ""},
		"a name without a domain":              {func(o *Options) { o.ProvisionerName = "rbd" }, ""},
		"an empty name":                        {func(o *Options) { o.ProvisionerName = "" }, `--provisioner-name: Invalid value: "": name part must be non-empty…`},
		"a name with two slashes":              {func(o *Options) { o.ProvisionerName = "a/b/c" }, `--provisioner-name: Invalid value: "a/b/c": a qualified name must consist of…`},
		"a name with a blank":                  {func(o *Options) { o.ProvisionerName = "ceph.com/my rbd" }, `--provisioner-name: Invalid value: "ceph.com/my rbd": name part must consist of…`},
		"the in-tree plugin's name":            {func(o *Options) { o.ProvisionerName = "kubernetes.io/rbd" }, `--provisioner-name: Invalid value: "kubernetes.io/rbd": ` + foreign},
		"any name of Kubernetes":               {func(o *Options) { o.ProvisionerName = "kubernetes.io/ceph" }, `--provisioner-name: Invalid value: "kubernetes.io/ceph": ` + foreign},
		"ceph-csi's name":                      {func(o *Options) { o.ProvisionerName = "rbd.csi.ceph.com" }, `--provisioner-name: Invalid value: "rbd.csi.ceph.com": ` + foreign},
		"a name that is not valid for a lease": {func(o *Options) { o.ProvisionerName = "ceph.com/RBD_fast" }, `--provisioner-name: Invalid value: "ceph.com/RBD_fast": with --leader-election, the name with "-" for "/" must be a valid lease name: a lowercase RFC 1123 subdomain…`},
		"the same name without a lease":        {func(o *Options) { o.ProvisionerName, o.LeaderElection.Enabled = "ceph.com/RBD_fast", false }, ""},

		"no worker":                          {func(o *Options) { o.WorkerThreads = 0 }, "--worker-threads: Invalid value: 0: must be at least 1"},
		"a negative number of workers":       {func(o *Options) { o.WorkerThreads = -1 }, "--worker-threads: Invalid value: -1: must be at least 1"},
		"the shortest timeout":               {func(o *Options) { o.Timeout = 2 * time.Second }, ""},
		"a timeout that is too short":        {func(o *Options) { o.Timeout = time.Second }, `--timeout: Invalid value: "1s": must be at least 2s`},
		"no retry delay":                     {func(o *Options) { o.RetryIntervalStart = 0 }, `--retry-interval-start: Invalid value: "0s": must be positive`},
		"a constant retry delay":             {func(o *Options) { o.RetryIntervalStart, o.RetryIntervalMax = time.Minute, time.Minute }, ""},
		"a maximum below the start":          {func(o *Options) { o.RetryIntervalMax = time.Millisecond }, `--retry-interval-max: Invalid value: "1ms": must not be less than --retry-interval-start`},
		"no resync":                          {func(o *Options) { o.ResyncPeriod = 0 }, ""},
		"orphans are never removed":          {func(o *Options) { o.OrphanGrace = 0 }, ""},
		"a negative orphan grace":            {func(o *Options) { o.OrphanGrace = -time.Second }, `--orphan-grace: Invalid value: "-1s": must not be negative`},
		"a negative resync period":           {func(o *Options) { o.ResyncPeriod = -time.Second }, `--resync-period: Invalid value: "-1s": must not be negative`},
		"no requests":                        {func(o *Options) { o.KubeAPIQPS = 0 }, "--kube-api-qps: Invalid value: 0: must be greater than 0"},
		"no burst":                           {func(o *Options) { o.KubeAPIBurst = 0 }, "--kube-api-burst: Invalid value: 0: must be at least 1"},
		"no HTTP server":                     {func(o *Options) { o.HTTPEndpoint = "" }, ""},
		"an HTTP server on one address":      {func(o *Options) { o.HTTPEndpoint = "[::1]:8080" }, ""},
		"an HTTP server without a port":      {func(o *Options) { o.HTTPEndpoint = "localhost" }, `--http-endpoint: Invalid value: "localhost": ` + endpoint},
		"a port without its colon":           {func(o *Options) { o.HTTPEndpoint = "8080" }, `--http-endpoint: Invalid value: "8080": ` + endpoint},
		"a path with two elements":           {func(o *Options) { o.MetricsPath = "/rbd/metrics.txt" }, ""},
		"an empty path":                      {func(o *Options) { o.MetricsPath = "" }, `--metrics-path: Invalid value: "": ` + path},
		"a path without a slash":             {func(o *Options) { o.MetricsPath = "metrics" }, `--metrics-path: Invalid value: "metrics": ` + path},
		"a path with a blank":                {func(o *Options) { o.MetricsPath = "/my metrics" }, `--metrics-path: Invalid value: "/my metrics": ` + path},
		"a path with a wildcard":             {func(o *Options) { o.MetricsPath = "/{any}" }, `--metrics-path: Invalid value: "/{any}": ` + path},
		"a path of health":                   {func(o *Options) { o.MetricsPath = "/livez" }, `--metrics-path: Invalid value: "/livez": ` + path},
		"a path of one check":                {func(o *Options) { o.MetricsPath = "/healthz/informers" }, `--metrics-path: Invalid value: "/healthz/informers": ` + path},
		"a path of profiles":                 {func(o *Options) { o.MetricsPath = "/debug/pprof/heap" }, `--metrics-path: Invalid value: "/debug/pprof/heap": ` + path},
		"an empty namespace of the lease":    {func(o *Options) { o.LeaderElection.Namespace = "" }, `--leader-election-namespace: Invalid value: "": must not be empty`},
		"no retry period":                    {func(o *Options) { o.LeaderElection.RetryPeriod = 0 }, `--leader-election-retry-period: Invalid value: "0s": must be positive`},
		"a renew deadline that is too short": {func(o *Options) { o.LeaderElection.RenewDeadline = 600 * time.Millisecond }, `--leader-election-renew-deadline: Invalid value: "600ms": ` + renewal},
		"no time for a response": {func(o *Options) {
			o.LeaderElection.RenewDeadline, o.LeaderElection.RetryPeriod = 300*time.Millisecond, time.Millisecond
		}, `--leader-election-renew-deadline: Invalid value: "300ms": ` + renewal},
		"a lease duration equal to the renew deadline": {func(o *Options) { o.LeaderElection.LeaseDuration = 10 * time.Second }, `--leader-election-lease-duration: Invalid value: "10s": ` + duration},
		"a loss that would be noticed too late": {func(o *Options) {
			o.LeaderElection.LeaseDuration, o.LeaderElection.RetryPeriod = 11*time.Second, 900*time.Millisecond
		}, `--leader-election-lease-duration: Invalid value: "11s": ` + duration},
		"the shortest lease duration": {func(o *Options) {
			o.LeaderElection.LeaseDuration, o.LeaderElection.RetryPeriod = 11*time.Second, 800*time.Millisecond
		}, ""},
		"a lease duration with a fraction of a second": {func(o *Options) { o.LeaderElection.LeaseDuration = 15500 * time.Millisecond }, `--leader-election-lease-duration: Invalid value: "15.5s": ` + duration},
		"no leader election": {func(o *Options) {
			o.LeaderElection = leadership.Options{Enabled: false}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := testOptions()
			test.change(opts)
			got := ""
			if err := opts.Validate().ToAggregate(); err != nil {
				got = err.Error()
			}
			if begin, ok := strings.CutSuffix(test.want, "…"); ok && strings.HasPrefix(got, begin) {
				return
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

// testOptions are the defaults, independent of the environment of the test.
func testOptions() *Options {
	opts := NewOptions()
	opts.ProvisionerName, opts.Kubeconfig, opts.LeaderElection.Namespace = "ceph.com/rbd", "", "rbd"
	return opts
}

func TestAllInvalidOptionsAreReported(t *testing.T) {
	t.Parallel()
	opts := &Options{
		ProvisionerName: "kubernetes.io/rbd", ResyncPeriod: -1, RetryIntervalMax: -1, HTTPEndpoint: "x",
		LeaderElection: leadership.Options{Enabled: true},
	}
	var flags []string
	for _, err := range opts.Validate() {
		flags = append(flags, err.Field)
	}
	want := []string{
		"--provisioner-name", "--worker-threads", "--timeout", "--retry-interval-start", "--retry-interval-max",
		"--resync-period", "--kube-api-qps", "--kube-api-burst", "--metrics-path", "--http-endpoint",
		"--leader-election-namespace", "--leader-election-retry-period", "--leader-election-renew-deadline",
		"--leader-election-lease-duration",
	}
	if diff := cmp.Diff(want, flags); diff != "" {
		t.Errorf("invalid flags (-want +got):\n%s", diff)
	}
}

func TestFlagsOverrideTheEnvironment(t *testing.T) {
	cleanEnvironment(t)
	opts := NewOptions()
	if opts.ProvisionerName != "ceph.com/rbd" || opts.Kubeconfig != "" || opts.LeaderElection.Namespace != "default" {
		t.Errorf("without an environment: %q, %q, %q", opts.ProvisionerName, opts.Kubeconfig, opts.LeaderElection.Namespace)
	}
	t.Setenv("PROVISIONER_NAME", "example.com/rbd")
	t.Setenv("KUBECONFIG", "/home/me/.kube/config")
	t.Setenv("POD_NAMESPACE", "storage")
	opts = NewOptions()
	if opts.ProvisionerName != "example.com/rbd" || opts.Kubeconfig != "/home/me/.kube/config" || opts.LeaderElection.Namespace != "storage" {
		t.Errorf("with an environment: %q, %q, %q", opts.ProvisionerName, opts.Kubeconfig, opts.LeaderElection.Namespace)
	}
	if err := parse(opts.Flags(), []string{"--provisioner-name=b", "--kubeconfig=c", "--leader-election-namespace=d"}); err != nil {
		t.Fatal(err)
	}
	if opts.ProvisionerName != "b" || opts.Kubeconfig != "c" || opts.LeaderElection.Namespace != "d" {
		t.Errorf("with flags: %q, %q, %q", opts.ProvisionerName, opts.Kubeconfig, opts.LeaderElection.Namespace)
	}
}

func TestEveryFlagSetsItsOption(t *testing.T) {
	t.Parallel()
	got := testOptions()
	if err := parse(got.Flags(), []string{
		"--provisioner-name=a.b/c", "--cluster-id=id", "--worker-threads=1", "--timeout=2s", "--retry-interval-start=3s",
		"--retry-interval-max=4s", "--resync-period=5s", "--orphan-grace=14s",
		"--predecessor-identity=rbd-1", "--predecessor-identity=rbd-2,rbd-3", "--kubeconfig=k", "--master=m", "--kube-api-qps=6.5", "--kube-api-burst=7",
		"--leader-election=false", "--leader-election-namespace=n", "--leader-election-lease-duration=8s",
		"--leader-election-renew-deadline=9s", "--leader-election-retry-period=10s",
		"--http-endpoint=:11", "--metrics-path=/12", "--enable-pprof", "--version", "-v=13",
	}); err != nil {
		t.Fatal(err)
	}
	if got.Logging.Verbosity != 13 {
		t.Errorf("verbosity %d", got.Logging.Verbosity)
	}
	got.Logging = nil
	want := &Options{
		ProvisionerName: "a.b/c", ClusterID: "id", WorkerThreads: 1, Timeout: 2 * time.Second,
		RetryIntervalStart: 3 * time.Second, RetryIntervalMax: 4 * time.Second, ResyncPeriod: 5 * time.Second,
		OrphanGrace: 14 * time.Second, PredecessorIdentities: []string{"rbd-1", "rbd-2", "rbd-3"},
		Kubeconfig: "k", Master: "m", KubeAPIQPS: 6.5, KubeAPIBurst: 7,
		LeaderElection: leadership.Options{
			Namespace: "n", LeaseDuration: 8 * time.Second, RenewDeadline: 9 * time.Second, RetryPeriod: 10 * time.Second,
		},
		HTTPEndpoint: ":11", MetricsPath: "/12", EnablePprof: true, Version: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
}
