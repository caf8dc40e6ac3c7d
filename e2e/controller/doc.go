// Package controller tests the provisioner's program, started as a process from
// outside, against a real Ceph cluster and a real Kubernetes control plane. No
// node is needed: nothing is mounted here.
//
// Beside what package framework needs, RBD_PROVISIONER names the program's binary.
// It runs with the rights that deploy/base gives it and no others, and with a Ceph
// user that may use one pool only. Most tests give it a name of its own, so that
// they may run at the same time; those that need the default name assume that no
// other provisioner of that name runs in the cluster, and that there is the pool
// "kube" with a user "client.kube", as the examples of the predecessors have it.
package controller
