// Package librbd is the rbdutil.Store over Ceph. Only this package and its package cephconn
// import go-ceph, and with it librados and librbd through cgo. To compile them, librbd-dev and
// librados-dev must be installed.
//
// An operation cannot be cancelled while it runs inside librbd. So each one runs in its own
// goroutine with two time limits. When the caller's context is done, the caller gets
// ErrTimeout. When the time limit of librados has passed, the operation ends, even if Ceph
// does not answer. Until then the image is locked: other operations on it get ErrInProgress.
package librbd
