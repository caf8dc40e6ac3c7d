package rbdfake_test

import (
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	ceph := rbdfake.New("kube", "data")
	change := func(t *testing.T, ref rbdutil.ImageRef, change func(*rbdutil.Image)) {
		t.Helper()
		if err := ceph.Change(ref, change); err != nil {
			t.Fatal(err)
		}
	}
	rbdtest.Run(t, rbdtest.Harness{
		Store: ceph, Pool: "kube", DataPool: "data",
		Watch: func(t *testing.T, ref rbdutil.ImageRef) func() {
			change(t, ref, func(i *rbdutil.Image) { i.Watchers = []string{"10.0.0.1:0/42"} })
			return func() { change(t, ref, func(i *rbdutil.Image) { i.Watchers = nil }) }
		},
		Write: on(ceph.Write),
		Snapshot: func(t *testing.T, ref rbdutil.ImageRef, name string) {
			change(t, ref, func(i *rbdutil.Image) { i.Snapshots = append(i.Snapshots, name) })
		},
		Clone: func(t *testing.T, ref rbdutil.ImageRef, _ string, clone rbdutil.ImageRef) {
			change(t, ref, func(i *rbdutil.Image) { i.Clones = append(i.Clones, clone.String()) })
		},
		Group: on(ceph.Group), Lock: on(ceph.Lock), Mirror: on(ceph.Mirror), TrashByHand: on(ceph.TrashByHand),
		LeavePartial: on(ceph.LeavePartial),
		Migrate: func(t *testing.T, ref rbdutil.ImageRef) rbdutil.ImageRef {
			to, err := ceph.Migrate(ref)
			if err != nil {
				t.Fatal(err)
			}
			return to
		},
		SetRecord: func(t *testing.T, ref rbdutil.ImageRef, value string) {
			if err := ceph.SetRecord(ref, value); err != nil {
				t.Fatal(err)
			}
		},
	})
}

// on returns a function of the harness that calls a method of the fake.
func on(do func(rbdutil.ImageRef) error) func(*testing.T, rbdutil.ImageRef) {
	return func(t *testing.T, ref rbdutil.ImageRef) {
		t.Helper()
		if err := do(ref); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	rbdtest.RunLimited(t, func(limiter rbdutil.Limiter) rbdutil.Store {
		ceph := rbdfake.New("kube")
		ceph.Limiter = limiter
		return ceph
	})
}
