// Package leadership elects one process that may change images, by a Lease. The Lease also records the
// Ceph clients of the leader, so that the next leader can fence them.
package leadership

import (
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/rest"
)

// Options are the flags that begin with leader-election.
type Options struct {
	Enabled       bool
	Namespace     string
	LeaseDuration time.Duration
	RenewDeadline time.Duration
	RetryPeriod   time.Duration
}

// minRequestTimeout is the shortest time in which an API server can be expected to answer.
const minRequestTimeout = 100 * time.Millisecond

// AddFlags adds the flags, with the values of the options as defaults.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.Enabled, "leader-election", o.Enabled, "Work only while holding the lease. Required for more than one replica: without it, two processes may change images at the same time.")
	fs.StringVar(&o.Namespace, "leader-election-namespace", o.Namespace, "Namespace of the lease. Environment: POD_NAMESPACE. If both are unset, the namespace of the pod.")
	fs.DurationVar(&o.LeaseDuration, "leader-election-lease-duration", o.LeaseDuration, "Time after which a standby takes over a lease that is not renewed. Whole seconds, at least 200ms more than the renew deadline plus the retry period.")
	fs.DurationVar(&o.RenewDeadline, "leader-election-renew-deadline", o.RenewDeadline, "Time after which a leader that cannot renew its lease exits. At least 400ms.")
	fs.DurationVar(&o.RetryPeriod, "leader-election-retry-period", o.RetryPeriod, "Interval between attempts to acquire or renew the lease.")
}

// Validate returns all errors of the options.
func (o *Options) Validate() field.ErrorList {
	var errs field.ErrorList
	require := func(ok bool, flag string, value any, why string) {
		if !ok {
			errs = append(errs, field.Invalid(field.NewPath("--"+flag), value, why))
		}
	}
	require(o.Namespace != "", "leader-election-namespace", o.Namespace, "must not be empty")
	require(o.RetryPeriod > 0, "leader-election-retry-period", o.RetryPeriod.String(), "must be positive")
	require(o.RenewDeadline > o.RetryPeriod*6/5 && o.RenewDeadline >= 4*minRequestTimeout,
		"leader-election-renew-deadline", o.RenewDeadline.String(),
		"must be at least 400ms, and more than 1.2 times --leader-election-retry-period")
	// The three may be valid separately, but not together. The Lease stores whole seconds, and
	// client-go truncates.
	require(o.LeaseDuration%time.Second == 0 && o.LeaseDuration >= o.RenewDeadline+o.RetryPeriod+2*minRequestTimeout,
		"leader-election-lease-duration", o.LeaseDuration.String(),
		"must be whole seconds, and at least 200ms more than --leader-election-renew-deadline plus --leader-election-retry-period")
	return errs
}

// LeaseName returns the name of a provisioner's lease. The library derives it in the same way.
func LeaseName(provisioner string) string { return strings.ReplaceAll(provisioner, "/", "-") }

// ClientConfig returns the configuration of the client for the lease. It must not share the rate limit
// of the other requests, because they would delay renewals.
func (o *Options) ClientConfig(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.Timeout = o.requestTimeout()
	// There are few requests for the lease, but they must not wait for each other.
	config.QPS, config.Burst = 50, 100
	// A request that times out closes its connection of HTTP/1.1. A connection of HTTP/2 would be used
	// again, although a load balancer may have other API servers.
	config.NextProtos = []string{"http/1.1"}
	return config
}

// requestTimeout limits one request for the lease. It leaves time for other attempts before the
// renew deadline, and keeps lossNoticed below the lease duration.
func (o *Options) requestTimeout() time.Duration {
	return min(o.RenewDeadline/4, (o.LeaseDuration-o.RenewDeadline-o.RetryPeriod)/2)
}

// lossNoticed is the longest time between sending the last successful renewal and the time when
// client-go notices that the lease is lost. It is the sum of:
//  1. requestTimeout, until the renewal is answered,
//  2. RetryPeriod, until the next renewal begins,
//  3. RenewDeadline, until that renewal has failed.
//
// A standby leads LeaseDuration after it has read the renewal, and therefore after the renewal was
// sent. So lossNoticed must be less than LeaseDuration.
func (o *Options) lossNoticed() time.Duration {
	return o.requestTimeout() + o.RetryPeriod + o.RenewDeadline
}
