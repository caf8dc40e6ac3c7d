package app

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// asProgram, in the environment, makes the test's binary the program itself, over a
// Ceph in memory. Main sets up what is global to a process: signals and the log.
const asProgram = "RBD_PROVISIONER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr, newReportingStore, os.Exit)) //nolint:forbidigo // this is main
	}
	goleak.VerifyTestMain(m,
		// The library never shuts down the broadcaster of its events.
		goleak.IgnoreTopFunction("k8s.io/client-go/tools/record.NewBroadcaster.func1"),
		goleak.IgnoreTopFunction("k8s.io/apimachinery/pkg/watch.(*Broadcaster).loop"),
		goleak.IgnoreAnyFunction("k8s.io/client-go/tools/record.(*eventBroadcasterImpl).StartEventWatcher.func1"),
	)
}

// golden compares what a test made with a file of the documentation, or rewrites
// that: UPDATE_GOLDEN=1 go test ./cmd/rbd-provisioner/app
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("..", "..", "..", "docs", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/%s (-want +got); `make update` rewrites it:\n%s", name, diff)
	}
}

// cleanEnvironment takes away what sets options, so that a test is the same on every
// machine. It keeps a test from running beside others.
func cleanEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{"PROVISIONER_NAME", "KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"} {
		t.Setenv(name, "")
	}
	// Without it, a pod would find its own namespace.
	t.Setenv("POD_NAMESPACE", "default")
}

// runMain returns the exit code and what was printed.
func runMain(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Main(args, &out, &err, func(StoreOptions) Store {
		t.Error("it has begun to work")
		return nil
	}, func(code int) { t.Errorf("it exits at once with code %d", code) })
	return code, out.String(), err.String()
}

func TestHelpIsDocumented(t *testing.T) {
	cleanEnvironment(t)
	code, stdout, stderr := runMain(t, "--help")
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	golden(t, "command-line-flags.txt", []byte(stdout))
	if _, short, _ := runMain(t, "-h"); short != stdout {
		t.Errorf("-h prints something else:\n%s", cmp.Diff(stdout, short))
	}
}

func TestVersion(t *testing.T) {
	cleanEnvironment(t)
	// Before anything else is looked at, so that it works everywhere.
	code, stdout, stderr := runMain(t, "--version", "--worker-threads=0")
	if code != 0 || stderr != "" || stdout != "rbd-provisioner "+version+"\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestArgumentsThatMakeNoSense(t *testing.T) {
	cleanEnvironment(t)
	const help = "\nrbd-provisioner --help lists the flags\n"
	for name, test := range map[string]struct {
		args   []string
		stderr string
	}{
		"an unknown flag":         {[]string{"--monitors=a"}, "unknown flag: --monitors" + help},
		"an argument":             {[]string{"--worker-threads=1", "start", "now"}, `unexpected argument "start": there are flags only` + help},
		"a value of another type": {[]string{"--timeout=30"}, `invalid argument "30" for "--timeout" flag: time: missing unit in duration "30"` + help},
		"a flag without a value":  {[]string{"--timeout"}, "flag needs an argument: --timeout" + help},
		"a value out of range":    {[]string{"--worker-threads=0"}, "--worker-threads: Invalid value: 0: must be at least 1\n"},
		"two values out of range": {[]string{"--worker-threads=0", "--timeout=1s"},
			"[--worker-threads: Invalid value: 0: must be at least 1, --timeout: Invalid value: \"1s\": must be at least 2s]\n"},
		"a log format that is none": {[]string{"--logging-format=xml"}, "format: Invalid value: \"xml\": Unsupported log format\n"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := runMain(t, test.args...)
			if code != 2 || stdout != "" {
				t.Errorf("exit code %d, want 2; stdout %q", code, stdout)
			}
			if diff := cmp.Diff(test.stderr, stderr); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFlagsMayHaveUnderscores(t *testing.T) {
	cleanEnvironment(t)
	opts := NewOptions()
	if err := parse(opts.Flags(), []string{"--worker_threads=3", "--leader_election=false"}); err != nil {
		t.Fatal(err)
	}
	if opts.WorkerThreads != 3 || opts.LeaderElection.Enabled {
		t.Errorf("options %+v", opts)
	}
}
