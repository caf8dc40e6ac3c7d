// Package bench measures the provisioner beside its predecessor inside Kubernetes
// (kubernetes.io/rbd), on the same Ceph and control plane, and prints ratios. What it
// measures it does not judge: times depend on the machine. `make bench` runs it.
package bench
