package framework

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config returns the administrator's configuration of the cluster that KUBECONFIG names.
func Config(t *testing.T) *rest.Config {
	t.Helper()
	config, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	return rest.CopyConfig(config)
}

var loadConfig = sync.OnceValues(func() (*rest.Config, error) {
	path := os.Getenv("KUBECONFIG")
	if path == "" {
		return nil, errors.New("KUBECONFIG is not set; use `lab exec NAME -- go test …`")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read KUBECONFIG: %w", err)
	}
	// Many tests poll at the same time. The client's rate limit would delay them.
	config.QPS = -1
	// The API server returns a deprecation warning for every rbd volume.
	config.WarningHandler = rest.NoWarnings{}
	return config, nil
})

func connect(t *testing.T) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(Config(t))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// HasKubernetes reports whether the API server is of this version, such as "1.24", or later.
func (e *Env) HasKubernetes(t *testing.T, want string) bool {
	t.Helper()
	info, err := e.Client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	got, err := version.ParseGeneric(info.GitVersion)
	if err != nil {
		t.Fatal(err)
	}
	return got.AtLeast(version.MustParseGeneric(want))
}

// Kubectl runs kubectl with a text on its standard input and returns its output.
func Kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := TryKubectl(t.Context(), stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryKubectl runs kubectl. The error includes its standard error.
func TryKubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}
