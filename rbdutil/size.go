package rbdutil

import (
	"fmt"
	"math/bits"
)

// Limits of image and object sizes.
const (
	// MiB is the unit in which image sizes are rounded up, as `rbd create --size` counts.
	MiB uint64 = 1 << 20
	// MinObjectSize and MaxObjectSize are Ceph's bounds for an image's objects, in bytes.
	MinObjectSize uint64 = 4 << 10
	MaxObjectSize uint64 = 32 << 20
	// DefaultObjectSize is Ceph's own, in bytes.
	DefaultObjectSize uint64 = 4 << 20
	// MaxObjects is how many objects an image may have. Ceph refuses to keep an
	// object map of more; without a map it takes any number, but to remove the
	// image it asks for each of them, which would never end.
	MaxObjects uint64 = 256_000_000
)

// SizeFor returns the size in bytes of the image that holds a request of so many
// bytes: the next whole MiB.
func SizeFor(request int64, layout Layout) (uint64, error) {
	if request <= 0 {
		return 0, fmt.Errorf("a volume cannot be so small: ask for %s or more", quantity(MiB))
	}
	objectSize := layout.ObjectSize
	if objectSize == 0 {
		objectSize = DefaultObjectSize
	}
	size := RoundUp(request)
	if most := MaxObjects * objectSize; size > most {
		return 0, fmt.Errorf("an image cannot be so large: ask for %s or less (%d objects of %s each; a larger objectSize allows for more)",
			quantity(most), MaxObjects, quantity(objectSize))
	}
	return size, nil
}

// RoundUp returns so many bytes or a little more, in whole MiB.
func RoundUp(bytes int64) uint64 { return (uint64(bytes) + MiB - 1) / MiB * MiB }

// CheckObjectSize tells whether Ceph takes the size, in bytes, for an image's objects.
func CheckObjectSize(size uint64) error {
	if bits.OnesCount64(size) != 1 || size < MinObjectSize || size > MaxObjectSize {
		return fmt.Errorf("%d bytes is not a power of two from %s to %s", size, quantity(MinObjectSize), quantity(MaxObjectSize))
	}
	return nil
}

// quantity writes a number of bytes as Kubernetes does, in the largest unit of
// which it is a whole number.
func quantity(bytes uint64) string {
	for _, unit := range []string{"", "Ki", "Mi"} {
		if bytes%1024 != 0 {
			return fmt.Sprintf("%d%s", bytes, unit)
		}
		bytes /= 1024
	}
	return fmt.Sprintf("%dGi", bytes)
}
