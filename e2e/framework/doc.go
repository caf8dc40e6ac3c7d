// Package framework has what the tests against real clusters share: a separate environment for
// each test, functions that wait for a condition, and a report of the clusters' state when a
// test fails.
//
// KUBECONFIG and CEPH_CONF name the clusters, with the credentials of their administrators. The
// commands kubectl, ceph and rbd must be on the PATH. The package does not depend on how the
// clusters were started. A test without one of these requirements fails. A test is only skipped
// by the functions in require.go, and never in a lab.
package framework
