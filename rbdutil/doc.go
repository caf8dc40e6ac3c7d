// Package rbdutil says what an RBD image is to this project: plain Go types for
// clusters, images, features and sizes, one sentinel error per thing that can go
// wrong, the Store interface that a Ceph client implements, and Images, the
// idempotent layer over any Store.
//
// Nothing here needs Ceph to compile or to test. The Ceph client is
// rbdutil/librbd; rbdutil/rbdfake is a Store in memory; rbdutil/rbdtest holds the
// contract that both must keep.
package rbdutil
