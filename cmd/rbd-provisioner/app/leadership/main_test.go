package leadership

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testOptions are the defaults of the command line.
func testOptions() *Options {
	return &Options{
		Enabled: true, Namespace: "rbd",
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 500 * time.Millisecond,
	}
}
