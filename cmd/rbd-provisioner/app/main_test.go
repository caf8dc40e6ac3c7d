package app

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// asProgram is an environment variable that makes the test binary run the program with a fake Ceph. Main
// needs its own process, because it configures signals and the log.
const asProgram = "RBD_PROVISIONER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr, newReportingStore, os.Exit)) //nolint:forbidigo // this is main
	}
	goleak.VerifyTestMain(m,
		// The library does not shut down its event broadcaster.
		goleak.IgnoreTopFunction("k8s.io/client-go/tools/record.NewBroadcaster.func1"),
		goleak.IgnoreTopFunction("k8s.io/apimachinery/pkg/watch.(*Broadcaster).loop"),
		goleak.IgnoreAnyFunction("k8s.io/client-go/tools/record.(*eventBroadcasterImpl).StartEventWatcher.func1"),
	)
}

// golden compares the result of a test with a file of the documentation. To update the file, run
// UPDATE_GOLDEN=1 go test ./cmd/rbd-provisioner/app.
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
		t.Errorf("docs/%s (-want +got), update it with `make update`:\n%s", name, diff)
	}
}

// cleanEnvironment unsets the variables that set options, so that a test is the same on every machine.
// Tests that call it cannot run in parallel.
func cleanEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{"PROVISIONER_NAME", "KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"} {
		t.Setenv(name, "")
	}
	// The default is the namespace of the pod, if the test runs in a pod.
	t.Setenv("POD_NAMESPACE", "default")
}

// runMain returns the exit code and the output.
func runMain(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Main(args, &out, &err, func(StoreOptions) Store {
		t.Error("the program has started")
		return nil
	}, func(code int) { t.Errorf("unexpected exit with code %d", code) })
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
		t.Errorf("-h differs from --help:\n%s", cmp.Diff(stdout, short))
	}
}

func TestVersion(t *testing.T) {
	cleanEnvironment(t)
	// The version is printed before the options are validated.
	code, stdout, stderr := runMain(t, "--version", "--worker-threads=0")
	if code != 0 || stderr != "" || stdout != "rbd-provisioner "+version+"\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestInvalidArguments(t *testing.T) {
	cleanEnvironment(t)
	const help = "\nfor the list of flags, run rbd-provisioner --help\n"
	for name, test := range map[string]struct {
		args   []string
		stderr string
	}{
		"an unknown flag":           {[]string{"--monitors=a"}, "unknown flag: --monitors" + help},
		"an argument":               {[]string{"--worker-threads=1", "start", "now"}, `unexpected argument "start": only flags are supported` + help},
		"a value of the wrong type": {[]string{"--timeout=30"}, `invalid argument "30" for "--timeout" flag: time: missing unit in duration "30"` + help},
		"a flag without a value":    {[]string{"--timeout"}, "flag needs an argument: --timeout" + help},
		"a value out of range":      {[]string{"--worker-threads=0"}, "--worker-threads: Invalid value: 0: must be at least 1\n"},
		"two values out of range": {[]string{"--worker-threads=0", "--timeout=1s"},
			"[--worker-threads: Invalid value: 0: must be at least 1, --timeout: Invalid value: \"1s\": must be at least 2s]\n"},
		"an invalid log format": {[]string{"--logging-format=xml"}, "format: Invalid value: \"xml\": Unsupported log format\n"},
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
