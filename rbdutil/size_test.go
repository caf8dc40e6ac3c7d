package rbdutil

import (
	"math"
	"testing"
)

func TestRoundUpSize(t *testing.T) {
	t.Parallel()
	const mib = int64(1) << 20
	const top = math.MaxInt64 / mib * mib // the largest whole number of MiB
	for name, test := range map[string]struct {
		request int64
		want    uint64
		err     string
	}{
		"the least request is one MiB":              {request: 1, want: MiB},
		"one byte less than a MiB":                  {request: mib - 1, want: MiB},
		"a whole MiB stays":                         {request: mib, want: MiB},
		"one byte more is the next MiB":             {request: mib + 1, want: 2 * MiB},
		"1500Mi stays":                              {request: 1500 * mib, want: 1500 * MiB},
		"a decimal gigabyte is rounded up":          {request: 1_000_000_000, want: 954 * MiB},
		"10Ti stays":                                {request: 10 << 40, want: 10 << 40},
		"the largest whole MiB stays":               {request: top, want: MaxImageSize},
		"one byte less than the largest rounds up":  {request: top - 1, want: MaxImageSize},
		"one byte more than the largest is refused": {request: top + 1, err: "9223372036853727233 bytes is more than an image can hold (9223372036853727232)"},
		"the largest number is refused":             {request: math.MaxInt64, err: "9223372036854775807 bytes is more than an image can hold (9223372036853727232)"},
		"nothing is no volume":                      {request: 0, err: "a size of 0 bytes is not a volume"},
		"less than nothing is no volume":            {request: -1, err: "a size of -1 bytes is not a volume"},
		"the smallest number is no volume":          {request: math.MinInt64, err: "a size of -9223372036854775808 bytes is not a volume"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := RoundUpSize(test.request)
			if got != test.want || textOf(err) != test.err {
				t.Errorf("RoundUpSize(%d) = %d, %v, want %d, %s", test.request, got, err, test.want, test.err)
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
		"Ceph's own":                   {size: 4 << 20},
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

func FuzzRoundUpSize(f *testing.F) {
	for _, request := range []int64{math.MinInt64, -1, 0, 1, 1 << 20, 1<<20 + 1, 1 << 40, math.MaxInt64 - 1<<20, math.MaxInt64} {
		f.Add(request)
	}
	f.Fuzz(func(t *testing.T, request int64) {
		size, err := RoundUpSize(request)
		if err != nil {
			if size != 0 {
				t.Errorf("RoundUpSize(%d) = %d beside the error %v", request, size, err)
			}
			if request > 0 && uint64(request) <= MaxImageSize {
				t.Errorf("RoundUpSize(%d) refuses what an image can hold: %v", request, err)
			}
			return
		}
		switch {
		case size%MiB != 0:
			t.Errorf("RoundUpSize(%d) = %d, which is not a whole number of MiB", request, size)
		case request <= 0 || size < uint64(request):
			t.Errorf("RoundUpSize(%d) = %d, which is too small", request, size)
		case size-uint64(request) >= MiB:
			t.Errorf("RoundUpSize(%d) = %d, which is a MiB or more too large", request, size)
		case int64(size) < 0:
			t.Errorf("RoundUpSize(%d) = %d, which no quantity can say", request, size)
		}
	})
}
