// Package librbd is the rbdutil.Store over Ceph. It is the only package that imports
// go-ceph, and with it librados and librbd through cgo. To compile it, librbd-dev and
// librados-dev must be installed.
//
// An operation cannot be cancelled while it runs inside librbd. So each one runs in its own
// goroutine with two time limits. When the caller's context is done, the caller gets
// ErrTimeout. When the time limit of librados has passed, the operation ends, even if Ceph
// does not answer. Until then the image is locked: other operations on it get ErrInProgress.
package librbd
