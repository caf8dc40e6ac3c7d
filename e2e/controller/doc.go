// Package controller tests the provisioner's program, started as a process, against a real Ceph
// cluster and a real Kubernetes control plane. It needs no nodes, because it mounts nothing.
//
// In addition to the requirements of package framework, RBD_PROVISIONER must name the program's
// binary. The program runs with the permissions of deploy/base only, and with a Ceph user that
// may use one pool only. Most tests give it a name of their own, so that they can run at the
// same time. Tests with the default name require that no other provisioner of that name runs in
// the cluster. They also need the pool "kube" with a user "client.kube", as in the examples of
// the predecessors. WANT_LIBRBD may name the version of Ceph whose client library the program must
// use, for example 18.
package controller
