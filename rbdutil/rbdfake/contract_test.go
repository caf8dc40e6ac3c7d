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
		Write: func(t *testing.T, ref rbdutil.ImageRef) {
			if err := ceph.Write(ref); err != nil {
				t.Fatal(err)
			}
		},
		Snapshot: func(t *testing.T, ref rbdutil.ImageRef, name string) {
			change(t, ref, func(i *rbdutil.Image) { i.Snapshots = append(i.Snapshots, name) })
		},
		Clone: func(t *testing.T, ref rbdutil.ImageRef, _ string, clone rbdutil.ImageRef) {
			change(t, ref, func(i *rbdutil.Image) { i.Clones = append(i.Clones, clone.String()) })
		},
		Group: func(t *testing.T, ref rbdutil.ImageRef) {
			if err := ceph.Group(ref); err != nil {
				t.Fatal(err)
			}
		},
		LeaveRemains: func(t *testing.T, ref rbdutil.ImageRef) {
			if err := ceph.LeaveRemains(ref); err != nil {
				t.Fatal(err)
			}
		},
	})
}
