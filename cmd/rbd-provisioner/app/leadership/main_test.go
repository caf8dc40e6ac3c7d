package leadership

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience limits the waits of a test. It matters only for tests that fail.
const patience = 30 * time.Second

func await[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		t.Fatalf("timed out waiting for %s", what)
		panic("unreachable") //nolint:forbidigo // Fatalf has ended the test
	}
}

// testOptions are the defaults of the command line.
func testOptions() *Options {
	return &Options{
		Enabled: true, Namespace: "rbd",
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 500 * time.Millisecond,
	}
}
