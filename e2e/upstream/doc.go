// Package upstream runs Kubernetes' own suite for storage drivers, "External Storage", against a
// StorageClass of the provisioner: pods on real nodes use volumes in every way that Kubernetes
// tests. Use run.sh; it needs a cluster in KUBECONFIG only.
//
// The suite is that of Kubernetes 1.30, the last version with the in-tree rbd plugin. driver.yaml
// tells it what an rbd volume can do. skips.yaml lists all specs that do not run, with the reason.
// A spec that is skipped without an entry there fails the run.
//
// The package is in a Go module of its own. Its dependencies would otherwise change go.mod of
// e2e/kubernetes, and with it the key of the lab's cache: each change here would rebuild
// Kubernetes.
package upstream
