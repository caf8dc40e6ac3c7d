// Package bench compares the provisioner with its predecessor inside Kubernetes
// (kubernetes.io/rbd), on the same Ceph and control plane, and prints ratios. No measurement
// fails a test, because times depend on the machine. `make bench` runs it.
package bench
