package librbd

import (
	"math/bits"

	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// setLayout sets every option of a layout. Ceph takes missing options from its
// configuration, which an administrator can change for all clients (`ceph config set
// client`) or for a pool (`rbd config pool set`). Then images would have features that were
// not requested.
func setLayout(opts *rbd.ImageOptions, layout rbdutil.Layout) error {
	const format, unstriped = 2, 1
	objectSize := layout.ObjectSize
	if objectSize == 0 {
		objectSize = rbdutil.DefaultObjectSize
	}
	for _, option := range []struct {
		name  rbd.ImageOption
		value uint64
	}{
		{rbd.ImageOptionFormat, format},
		{rbd.ImageOptionFeatures, uint64(layout.Features)},
		{rbd.ImageOptionOrder, uint64(bits.TrailingZeros64(objectSize))},
		// Zero means the configured value. One stripe of the object size means no striping.
		{rbd.ImageOptionStripeUnit, objectSize},
		{rbd.ImageOptionStripeCount, unstriped},
	} {
		if err := opts.SetUint64(option.name, option.value); err != nil {
			return err
		}
	}
	// An empty name means the pool of the image.
	return opts.SetString(rbd.ImageOptionDataPool, layout.DataPool)
}
