package rbdutil

import (
	"fmt"
	"math"
	"math/bits"
)

// Limits of image and object sizes, in bytes.
const (
	// MiB is the unit in which image sizes are rounded up, as `rbd create --size` counts.
	MiB uint64 = 1 << 20
	// MinObjectSize and MaxObjectSize are Ceph's bounds for an image's objects.
	MinObjectSize uint64 = 4 << 10
	MaxObjectSize uint64 = 32 << 20
	// MaxImageSize is the largest size that a Kubernetes quantity can say exactly
	// as a whole number of MiB.
	MaxImageSize = uint64(math.MaxInt64) / MiB * MiB
)

// RoundUpSize returns the size in bytes of the image that holds a request of so
// many bytes: the next whole MiB.
func RoundUpSize(request int64) (uint64, error) {
	if request <= 0 {
		return 0, fmt.Errorf("a size of %d bytes is not a volume", request)
	}
	size := (uint64(request) + MiB - 1) / MiB * MiB
	if size > MaxImageSize {
		return 0, fmt.Errorf("%d bytes is more than an image can hold (%d)", request, MaxImageSize)
	}
	return size, nil
}

// CheckObjectSize tells whether Ceph takes the size, in bytes, for an image's objects.
func CheckObjectSize(size uint64) error {
	if bits.OnesCount64(size) != 1 || size < MinObjectSize || size > MaxObjectSize {
		return fmt.Errorf("%d bytes is not a power of two from 4Ki to 32Mi", size)
	}
	return nil
}
