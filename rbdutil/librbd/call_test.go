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
	end, ok := c.begin(image)
	if !ok {
		t.Fatal("the first call is refused")
	}
	if _, ok := c.begin(image); ok {
		t.Error("a second call on the image is let in")
	}
	for name, key := range map[string]callKey{
		"another image":     {"mon", rbdutil.ImageRef{Pool: "kube", Name: "y"}},
		"another pool":      {"mon", rbdutil.ImageRef{Pool: "data", Name: "x"}},
		"another cluster":   {"elsewhere", image.image},
		"the pool":          {"mon", rbdutil.ImageRef{Pool: "kube"}},
		"the pool, besides": {"mon", rbdutil.ImageRef{Pool: "kube"}},
	} {
		if _, ok := c.begin(key); !ok {
			t.Errorf("%s is refused", name)
		}
	}
	end()
	if _, ok := c.begin(image); !ok {
		t.Error("a call is refused after the first has come back")
	}
}
