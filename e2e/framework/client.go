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

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config is how to reach the cluster that KUBECONFIG names, as its administrator.
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
		return nil, errors.New("KUBECONFIG does not name a cluster's kubeconfig file; `lab exec NAME -- go test …` sets it")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read KUBECONFIG: %w", err)
	}
	// Many tests wait at the same time. They must not wait for their own client.
	config.QPS = -1
	// Every rbd volume earns the same warning of its deprecation.
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

// Kubectl runs kubectl with a text on its standard input and returns what it prints.
func Kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := TryKubectl(t.Context(), stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryKubectl runs kubectl. Its error has what kubectl says on its standard error.
func TryKubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}
