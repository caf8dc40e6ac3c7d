//go:build ceph

package librbd_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
)

// info is the layout in the output of `rbd info`, which has the stripe only of striped images.
type info struct {
	ObjectSize  uint64   `json:"object_size"`
	StripeCount int      `json:"stripe_count"`
	DataPool    string   `json:"data_pool"`
	Features    []string `json:"features"`
}

// TestTheLayoutIsNotTakenFromTheConfiguration sets other defaults for all clients, then for the
// pool. It is not parallel, as the defaults for all clients would affect other tests.
func TestTheLayoutIsNotTakenFromTheConfiguration(t *testing.T) {
	const pool, data, wanted = "layout", "layout-configured", "layout-wanted"
	ceph, cluster := newClusterWith(t, pool, data, wanted)
	store := newStore(t, librbd.Options{})
	defaults := map[string]string{
		"rbd_default_order": "23", "rbd_default_stripe_unit": "65536", "rbd_default_stripe_count": "4",
		"rbd_default_data_pool": data, "rbd_default_features": "61", "rbd_default_clone_format": "2",
	}
	for place, set := range map[string]func(option, value string) (unset func()){
		"clients": func(option, value string) func() {
			ceph.Run(t, "ceph", "config", "set", "client", option, value)
			return func() { ceph.Run(t, "ceph", "config", "rm", "client", option) }
		},
		"pool": func(option, value string) func() {
			ceph.Run(t, "rbd", "config", "pool", "set", pool, option, value)
			return func() { ceph.Run(t, "rbd", "config", "pool", "rm", pool, option) }
		},
	} {
		t.Run(place, func(t *testing.T) {
			for option, value := range defaults {
				defer set(option, value)()
			}
			image := func(n string) rbdutil.ImageRef { return rbdutil.ImageRef{Pool: pool, Name: place + "-" + n} }
			// An image with the defaults, which nodes cannot map.
			striped := image("striped")
			ceph.Run(t, "rbd", "create", "--size", "8", striped.String())
			if got := infoOf(t, ceph.JSON, striped); got.StripeCount != 4 || got.DataPool != data {
				t.Fatalf("the defaults have no effect: %+v", got)
			}
			for n, layout := range []rbdutil.Layout{
				{Features: rbdutil.Layering},
				{Features: rbdutil.Layering, ObjectSize: 1 << 20},
				{Features: rbdutil.Layering | rbdutil.ExclusiveLock, DataPool: wanted},
			} {
				source := image(fmt.Sprint(n))
				if err := store.Create(t.Context(), cluster, source, layout); err != nil {
					t.Fatal(err)
				}
				wantLayout(t, infoOf(t, ceph.JSON, source), layout)
				// Ceph creates no clones of images of size 0.
				if err := store.Update(t.Context(), cluster, rbdutil.Image{ImageRef: source}, nil, 8*rbdutil.MiB); err != nil {
					t.Fatal(err)
				}
				if err := store.CreateSnapshot(t.Context(), cluster, source, "one"); err != nil {
					t.Fatal(err)
				}
				clone := image(fmt.Sprint(n, "-clone"))
				if err := store.Clone(t.Context(), cluster, source, "one", clone, layout); err != nil {
					t.Fatal(err)
				}
				wantLayout(t, infoOf(t, ceph.JSON, clone), layout)
			}
			if err := store.CreateSnapshot(t.Context(), cluster, striped, "one"); err != nil {
				t.Fatal(err)
			}
			layout := rbdutil.Layout{Features: rbdutil.Layering, ObjectSize: 8 << 20}
			clone := image("clone-of-striped")
			if err := store.Clone(t.Context(), cluster, striped, "one", clone, layout); err != nil {
				t.Fatal(err)
			}
			wantLayout(t, infoOf(t, ceph.JSON, clone), layout)
		})
	}
}

func infoOf(t *testing.T, run func(*testing.T, any, string, ...string), ref rbdutil.ImageRef) (got info) {
	t.Helper()
	run(t, &got, "rbd", "info", ref.String())
	return got
}

func wantLayout(t *testing.T, got info, layout rbdutil.Layout) {
	t.Helper()
	want := info{ObjectSize: layout.ObjectSize, DataPool: layout.DataPool, Features: []string{"layering"}}
	if want.ObjectSize == 0 {
		want.ObjectSize = 4 << 20
	}
	if layout.Features.Has(rbdutil.ExclusiveLock) {
		want.Features = append(want.Features, "exclusive-lock")
	}
	if layout.DataPool != "" {
		want.Features = append(want.Features, "data-pool")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layout (-want +got):\n%s", diff)
	}
}
