package librbd

import (
	"math/bits"

	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// setLayout sets every option of a layout. Ceph takes an option that is not set from its
// configuration, which can be changed centrally (`ceph config set client`) or for a pool
// (`rbd config pool set`): then an image would have features that nobody has asked for.
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
		// Zeros would mean the configured values. An image with one stripe of the size of
		// an object is not striped.
		{rbd.ImageOptionStripeUnit, objectSize},
		{rbd.ImageOptionStripeCount, unstriped},
	} {
		if err := opts.SetUint64(option.name, option.value); err != nil {
			return err
		}
	}
	// An empty name that is set means the pool of the image.
	return opts.SetString(rbd.ImageOptionDataPool, layout.DataPool)
}
