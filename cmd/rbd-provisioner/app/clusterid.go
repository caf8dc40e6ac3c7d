package app

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// forbiddenGracePeriod is the time for which "forbidden" is retried. An API server that was just started
// answers requests before it has read the RBAC rules.
const forbiddenGracePeriod = 30 * time.Second

// clusterID returns the UID of the namespace kube-system, which is commonly used as the ID of a cluster.
// It waits for an API server that cannot be reached, and retries "forbidden" for the grace period.
func clusterID(ctx context.Context, client kubernetes.Interface, grace time.Duration) (string, error) {
	const pause = 2 * time.Second
	var id string
	start := time.Now()
	err := wait.PollUntilContextCancel(ctx, pause, true, func(ctx context.Context) (bool, error) {
		namespace, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		switch {
		case apierrors.IsForbidden(err) && time.Since(start) < grace:
			klog.FromContext(ctx).Error(err, "Failed to read namespace kube-system, will be retried")
			return false, nil
		case apierrors.IsForbidden(err), apierrors.IsNotFound(err), apierrors.IsUnauthorized(err):
			return false, fmt.Errorf("read the UID of namespace %s (or set --cluster-id): %w", metav1.NamespaceSystem, err)
		case err != nil:
			klog.FromContext(ctx).Error(err, "Failed to read namespace kube-system, waiting for the Kubernetes API server")
			return false, nil
		}
		id = string(namespace.UID)
		return true, nil
	})
	return id, err
}
