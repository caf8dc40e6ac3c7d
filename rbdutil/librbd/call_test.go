//go:build ceph

package librbd

import (
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func TestOneCallAtATimeOnAnImageAndAnyNumberOnAPool(t *testing.T) {
	t.Parallel()
	var c calls
	image := callKey{"mon", rbdutil.ImageRef{Pool: "kube", Name: "x"}}
	end, ok := c.begin(image, false)
	if !ok {
		t.Fatal("the first call is refused")
	}
	if _, ok := c.begin(image, false); ok {
		t.Error("a second call on the image is let in")
	}
	for name, key := range map[string]callKey{
		"another image":     {"mon", rbdutil.ImageRef{Pool: "kube", Name: "y"}},
		"another pool":      {"mon", rbdutil.ImageRef{Pool: "data", Name: "x"}},
		"another cluster":   {"elsewhere", image.image},
		"the pool":          {"mon", rbdutil.ImageRef{Pool: "kube"}},
		"the pool, besides": {"mon", rbdutil.ImageRef{Pool: "kube"}},
	} {
		if _, ok := c.begin(key, false); !ok {
			t.Errorf("%s is refused", name)
		}
	}
	end()
	if _, ok := c.begin(image, false); !ok {
		t.Error("a call is refused after the first has come back")
	}
}

func TestManyReadAnImageAndNobodyElseMeanwhile(t *testing.T) {
	t.Parallel()
	var c calls
	image := callKey{"mon", rbdutil.ImageRef{Pool: "kube", Name: "x"}}
	var ends []func()
	for range 2 {
		end, ok := c.begin(image, true)
		if !ok {
			t.Fatal("a reader is refused")
		}
		ends = append(ends, end)
	}
	for _, end := range ends {
		if _, ok := c.begin(image, false); ok {
			t.Error("a change is let in while somebody reads")
		}
		end()
	}
	end, ok := c.begin(image, false)
	if !ok {
		t.Fatal("a change is refused after the last reader")
	}
	if _, ok := c.begin(image, true); ok {
		t.Error("a reader is let in while somebody changes the image")
	}
	end()
	if _, ok := c.begin(image, true); !ok {
		t.Error("a reader is refused after the change")
	}
}
