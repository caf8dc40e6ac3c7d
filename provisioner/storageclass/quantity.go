package storageclass

import (
	"math"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Bytes returns the value of a quantity. A quantity above the int64 range becomes
// MaxInt64, because Value overflows there.
func Bytes(q resource.Quantity) int64 {
	if q.CmpInt64(math.MaxInt64) > 0 {
		return math.MaxInt64
	}
	return q.Value()
}
