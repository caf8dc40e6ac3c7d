package rbdutil

import (
	"math"
	"testing"
)

func TestSizeFor(t *testing.T) {
	t.Parallel()
	const (
		mib   = int64(1) << 20
		most  = int64(256_000_000) * 4 << 20 // with Ceph's default objects
		small = "requested size is too small, minimum is 1Mi"
		large = "requested size is too large, maximum is 1000000Gi (256000000 objects of 4Mi; a larger objectSize allows more)"
	)
	for name, test := range map[string]struct {
		request    int64
		objectSize uint64
		want       uint64
		err        string
	}{
		"the least request is one MiB":              {request: 1, want: MiB},
		"one byte less than a MiB":                  {request: mib - 1, want: MiB},
		"a whole MiB stays":                         {request: mib, want: MiB},
		"one byte more is the next MiB":             {request: mib + 1, want: 2 * MiB},
		"1500Mi stays":                              {request: 1500 * mib, want: 1500 * MiB},
		"a decimal gigabyte is rounded up":          {request: 1_000_000_000, want: 954 * MiB},
		"10Ti stays":                                {request: 10 << 40, want: 10 << 40},
		"the largest stays":                         {request: most, want: uint64(most)},
		"one byte less than the largest rounds up":  {request: most - 1, want: uint64(most)},
		"one byte more than the largest is refused": {request: most + 1, err: large},
		"the default object size, explicitly":       {request: most + 1, objectSize: 4 << 20, err: large},
		"larger objects hold more":                  {request: most + 1, objectSize: 8 << 20, want: uint64(most) + MiB},
		"smaller objects hold less": {request: most, objectSize: 4 << 10,
			err: "requested size is too large, maximum is 1000000Mi (256000000 objects of 4Ki; a larger objectSize allows more)"},
		"the largest number is refused": {request: math.MaxInt64, err: large},
		"zero is refused":               {request: 0, err: small},
		"a negative number is refused":  {request: -1, err: small},
		"the smallest number":           {request: math.MinInt64, err: small},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := SizeFor(test.request, Layout{ObjectSize: test.objectSize})
			if got != test.want || textOf(err) != test.err {
				t.Errorf("SizeFor(%d) = %d, %v, want %d, %s", test.request, got, err, test.want, test.err)
			}
		})
	}
}

func TestCheckObjectSize(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		size uint64
		err  string
	}{
		"the smallest":                 {size: 4 << 10},
		"the default":                  {size: 4 << 20},
		"the largest":                  {size: 32 << 20},
		"every power of two between":   {size: 128 << 10},
		"none at all":                  {size: 0, err: "0 bytes is not a power of two from 4Ki to 32Mi"},
		"one byte":                     {size: 1, err: "1 bytes is not a power of two from 4Ki to 32Mi"},
		"half the smallest":            {size: 2 << 10, err: "2048 bytes is not a power of two from 4Ki to 32Mi"},
		"twice the largest":            {size: 64 << 20, err: "67108864 bytes is not a power of two from 4Ki to 32Mi"},
		"between two powers":           {size: 6 << 20, err: "6291456 bytes is not a power of two from 4Ki to 32Mi"},
		"one byte less than a power":   {size: 4<<20 - 1, err: "4194303 bytes is not a power of two from 4Ki to 32Mi"},
		"a power too large for signed": {size: 1 << 63, err: "9223372036854775808 bytes is not a power of two from 4Ki to 32Mi"},
	} {
		if got := textOf(CheckObjectSize(test.size)); got != test.err {
			t.Errorf("%s: CheckObjectSize(%d) = %q, want %q", name, test.size, got, test.err)
		}
	}
}

func FuzzSizeFor(f *testing.F) {
	for _, request := range []int64{math.MinInt64, -1, 0, 1, 1 << 20, 1<<20 + 1, 1 << 40, 1_024_000_000 << 20, math.MaxInt64} {
		for _, order := range []uint8{0, 12, 22, 25} {
			f.Add(request, order)
		}
	}
	f.Fuzz(func(t *testing.T, request int64, order uint8) {
		layout, objectSize := Layout{}, DefaultObjectSize
		if size := uint64(1) << order; CheckObjectSize(size) == nil {
			layout.ObjectSize, objectSize = size, size
		}
		size, err := SizeFor(request, layout)
		if err != nil {
			if size != 0 {
				t.Errorf("SizeFor(%d) = %d with the error %v", request, size, err)
			}
			if request > 0 && uint64(request) <= MaxObjects*objectSize {
				t.Errorf("SizeFor(%d) refuses a possible size: %v", request, err)
			}
			return
		}
		switch {
		case size%MiB != 0:
			t.Errorf("SizeFor(%d) = %d, which is not a whole number of MiB", request, size)
		case request <= 0 || size < uint64(request):
			t.Errorf("SizeFor(%d) = %d, which is too small", request, size)
		case size-uint64(request) >= MiB:
			t.Errorf("SizeFor(%d) = %d, which is a MiB or more too large", request, size)
		case (size+objectSize-1)/objectSize > MaxObjects:
			t.Errorf("SizeFor(%d) = %d, which has too many objects of %d", request, size, objectSize)
		case int64(size) < 0:
			t.Errorf("SizeFor(%d) = %d, which quantity cannot format", request, size)
		}
	})
}
