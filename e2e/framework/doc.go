// Package framework is what the tests against real clusters share: a place for
// each test to work in, waiting for what is to come, and a report of everything
// there is to know when it does not.
//
// The clusters are those that KUBECONFIG and CEPH_CONF name, as administrator of
// both, and kubectl, ceph and rbd must be on the PATH. Nothing here knows how they
// came up. A test that lacks one of these fails; none is ever skipped.
package framework
