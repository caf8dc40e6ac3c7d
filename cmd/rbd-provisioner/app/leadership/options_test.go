package leadership

import (
	"testing"
	"time"
)

// TestALossIsNoticedBeforeAnotherLeads checks the limit for all options that Validate accepts.
func TestALossIsNoticedBeforeAnotherLeads(t *testing.T) {
	t.Parallel()
	for _, renewDeadline := range []time.Duration{400 * time.Millisecond, 8 * time.Second, 10 * time.Second, time.Minute} {
		for _, retryPeriod := range []time.Duration{time.Millisecond, 500 * time.Millisecond, 5 * time.Second} {
			for seconds := range 120 {
				opts := testOptions()
				opts.LeaseDuration, opts.RenewDeadline, opts.RetryPeriod = time.Duration(seconds)*time.Second, renewDeadline, retryPeriod
				if len(opts.Validate()) > 0 {
					continue
				}
				if opts.lossNoticed() >= opts.LeaseDuration || opts.requestTimeout() < minRequestTimeout {
					t.Errorf("%+v: noticed after %s, with %s for a request", opts, opts.lossNoticed(), opts.requestTimeout())
				}
			}
		}
	}
}
