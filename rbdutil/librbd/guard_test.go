//go:build ceph

package librbd

import (
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func TestGuardLocksAnImageAndNotAPool(t *testing.T) {
	t.Parallel()
	var g imageGuard
	image := guardKey{"mon", rbdutil.ImageRef{Pool: "kube", Name: "x"}}
	unlock, ok := g.tryLock(image, false)
	if !ok {
		t.Fatal("the first operation is refused")
	}
	if _, ok := g.tryLock(image, false); ok {
		t.Error("a second operation on the image is not refused")
	}
	for name, key := range map[string]guardKey{
		"another image":   {"mon", rbdutil.ImageRef{Pool: "kube", Name: "y"}},
		"another pool":    {"mon", rbdutil.ImageRef{Pool: "data", Name: "x"}},
		"another cluster": {"elsewhere", image.image},
		"the pool":        {"mon", rbdutil.ImageRef{Pool: "kube"}},
		"the pool, again": {"mon", rbdutil.ImageRef{Pool: "kube"}},
	} {
		if _, ok := g.tryLock(key, false); !ok {
			t.Errorf("%s is refused", name)
		}
	}
	unlock()
	if _, ok := g.tryLock(image, false); !ok {
		t.Error("an operation is refused after the end of the first")
	}
}

func TestGuardLetsOperationsReadAtTheSameTime(t *testing.T) {
	t.Parallel()
	var g imageGuard
	image := guardKey{"mon", rbdutil.ImageRef{Pool: "kube", Name: "x"}}
	var unlocks []func()
	for range 2 {
		unlock, ok := g.tryLock(image, true)
		if !ok {
			t.Fatal("an operation that reads is refused")
		}
		unlocks = append(unlocks, unlock)
	}
	for _, unlock := range unlocks {
		if _, ok := g.tryLock(image, false); ok {
			t.Error("a change is not refused while an operation reads")
		}
		unlock()
	}
	unlock, ok := g.tryLock(image, false)
	if !ok {
		t.Fatal("a change is refused after the last operation that reads")
	}
	if _, ok := g.tryLock(image, true); ok {
		t.Error("an operation that reads is not refused during a change")
	}
	unlock()
	if _, ok := g.tryLock(image, true); !ok {
		t.Error("an operation that reads is refused after the change")
	}
}
