// Package storageclass reads the parameters of a StorageClass. It has pure functions
// only: they ask neither Kubernetes nor Ceph.
package storageclass
