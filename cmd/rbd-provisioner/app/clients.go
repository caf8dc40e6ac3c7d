package app

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"
)

// clients are the Kubernetes clients: one for the work, and one for the lease only.
type clients struct {
	work, lease kubernetes.Interface
}

func newClients(opts *Options) (clients, error) {
	config, err := clientcmd.BuildConfigFromFlags(opts.Master, opts.Kubeconfig)
	if err != nil {
		return clients{}, fmt.Errorf("configure the Kubernetes client (outside a cluster, set --kubeconfig): %w", err)
	}
	config.UserAgent = "rbd-provisioner/" + version
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	// The API server sends the same deprecation warning for each rbd volume.
	config.WarningHandler = rest.NewWarningWriter(warningLogger{}, rest.WarningWriterOptions{Deduplicate: true})

	lease := opts.LeaderElection.ClientConfig(config)
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(opts.KubeAPIQPS, opts.KubeAPIBurst)
	var c clients
	if c.work, err = kubernetes.NewForConfig(config); err != nil {
		return clients{}, fmt.Errorf("create Kubernetes client: %w", err)
	}
	if c.lease, err = kubernetes.NewForConfig(lease); err != nil {
		return clients{}, fmt.Errorf("create Kubernetes client: %w", err)
	}
	return c, nil
}
