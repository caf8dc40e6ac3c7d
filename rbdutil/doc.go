// Package rbdutil defines RBD images for this project: Go types for clusters, images,
// features and sizes, one error for each cause of a failure, and the Store interface that a
// Ceph client implements. Images is the idempotent layer over any Store.
//
// The package compiles and is tested without Ceph. rbdutil/librbd is the Ceph client,
// rbdutil/rbdfake is a Store in memory, rbdutil/rbdtest has the contract tests of both.
// rbdutil/poollimit limits the operations on each pool.
package rbdutil
