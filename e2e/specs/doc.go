// Package specs tests what users do: pods on real nodes mount volumes of the provisioner. The
// tests of unmounted_test.go need no kernel client.
//
// The provisioner is the Deployment of the directory deploy. If it does not exist, the tests
// install it and remove it at the end. In addition to the requirements of package framework,
// the cluster must have two nodes whose kubelets mount rbd volumes. They must have the images
// of package e2e/images, and /etc/ceph/keyring must be that of the Ceph user client.kube of the
// pool "kube".
package specs
