// Package librbd is the rbdutil.Store over a real Ceph. It is the only package
// that imports go-ceph, and with it librados and librbd through cgo: to compile it
// takes librbd-dev and librados-dev.
//
// Its calls cannot be cancelled once they are inside librbd. So each runs in a
// goroutine of its own under two bounds: the caller's context, after which the
// caller is told ErrTimeout, and librados' own time limits, after which the call
// comes back even from a Ceph that is dead. In between, the image is guarded: a
// second call on it is refused with ErrInProgress.
package librbd
