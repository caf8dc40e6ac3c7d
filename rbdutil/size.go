package rbdutil

import (
	"fmt"
	"math/bits"
)

// Limits of image and object sizes.
const (
	// MiB is the unit of image sizes, as in `rbd create --size`.
	MiB uint64 = 1 << 20
	// MinObjectSize and MaxObjectSize are Ceph's bounds of the object size, in bytes.
	MinObjectSize uint64 = 4 << 10
	MaxObjectSize uint64 = 32 << 20
	// DefaultObjectSize is Ceph's default, in bytes.
	DefaultObjectSize uint64 = 4 << 20
	// MaxObjects is how many objects an image may have. Ceph supports no object map of
	// more. Without a map it accepts any number, but the removal of the image sends a
	// request for each object, and would take years.
	MaxObjects uint64 = 256_000_000
)

// SizeFor returns the image size in bytes for a requested number of bytes: the next whole
// MiB.
func SizeFor(request int64, layout Layout) (uint64, error) {
	if request <= 0 {
		return 0, fmt.Errorf("requested size is too small, minimum is %s", quantity(MiB))
	}
	objectSize := layout.ObjectSize
	if objectSize == 0 {
		objectSize = DefaultObjectSize
	}
	size := RoundUp(request)
	if most := MaxObjects * objectSize; size > most {
		return 0, fmt.Errorf("requested size is too large, maximum is %s (%d objects of %s; a larger objectSize allows more)",
			quantity(most), MaxObjects, quantity(objectSize))
	}
	return size, nil
}

// RoundUp rounds a number of bytes up to whole MiB.
func RoundUp(bytes int64) uint64 { return (uint64(bytes) + MiB - 1) / MiB * MiB }

// CheckObjectSize returns an error if Ceph does not accept the object size, in bytes.
func CheckObjectSize(size uint64) error {
	if bits.OnesCount64(size) != 1 || size < MinObjectSize || size > MaxObjectSize {
		return fmt.Errorf("%d bytes is not a power of two from %s to %s", size, quantity(MinObjectSize), quantity(MaxObjectSize))
	}
	return nil
}

// quantity formats a number of bytes as Kubernetes does, in the largest unit without a
// fraction.
func quantity(bytes uint64) string {
	for _, unit := range []string{"", "Ki", "Mi"} {
		if bytes%1024 != 0 {
			return fmt.Sprintf("%d%s", bytes, unit)
		}
		bytes /= 1024
	}
	return fmt.Sprintf("%dGi", bytes)
}
