// Package specs tests what users do: pods on real nodes that mount what the
// provisioner has made for them.
//
// The provisioner is the Deployment of the folder deploy. Where it is not there
// yet, it is installed for as long as the tests run. Beside what package framework
// needs, there must be two nodes whose kubelets mount rbd volumes, which have the
// images of package e2e/images, whose /etc/ceph/keyring is that of the Ceph user
// client.kube of the pool "kube", and whose pods can be reached at their addresses.
package specs
