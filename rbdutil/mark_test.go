package rbdutil_test

import (
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func TestMarkCovers(t *testing.T) {
	t.Parallel()
	const mark = rbdutil.Mark("ceph.com/rbd in here")
	written := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		value   string
		trashed time.Time
		want    bool
	}{
		"what was trashed at once":          {mark.At(written), written.Add(time.Second), true},
		"what clocks make of it":            {mark.At(written), written.Add(-time.Minute), true},
		"not what somebody trashed later":   {mark.At(written), written.Add(2 * time.Hour), false},
		"not another's":                     {rbdutil.Mark("ceph.com/rbd in there").At(written), written, false},
		"not one whose name begins alike":   {rbdutil.Mark("ceph.com/rbd in hereabouts").At(written), written, false},
		"not a mark without a time":         {string(mark), written, false},
		"not a mark with nonsense for time": {string(mark) + " at noon", written, false},
		"not what has no mark":              {"", written, false},
	} {
		if got := mark.Covers(test.value, test.trashed); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
	}
}
