package rbdutil_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// Tests that cannot be part of rbdtest, as Ceph does not fail on demand: which calls are made,
// and how the error of each is returned.

var (
	ref          = rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-1e7f"}
	owner        = rbdutil.Owner{ClaimUID: "1e7f", ClaimNamespace: "shop", ClaimName: "www-web-0", VolumeName: "pvc-1e7f", Provisioner: "ceph.com/rbd", ClusterID: "here"}
	spec         = rbdutil.ImageSpec{ImageRef: ref, Layout: rbdutil.Layout{Features: rbdutil.Layering}, Size: 8 * rbdutil.MiB, Owner: owner}
	precondition = rbdutil.Precondition{Owner: rbdutil.Owner{VolumeName: "pvc-1e7f", ClusterID: "here"}}
	cluster      = rbdutil.Cluster{Monitors: []string{"mon"}, User: "admin"}
)

// ours is the record of an image for the owner.
var ours = rbdutil.Record{Owner: owner}

// recordOf returns a changed record of an image for the owner.
func recordOf(change func(*rbdutil.Owner)) rbdutil.Record {
	record := ours
	change(&record.Owner)
	return record
}

// scripted is a fake that records its calls, and fails some of them.
type scripted struct {
	*rbdfake.Ceph
	calls []string
}

// newScripted returns a fake whose nth call (from 0) fails with the error of that number.
func newScripted(failures map[int]error) *scripted {
	s := &scripted{Ceph: rbdfake.New("kube", "data")}
	s.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		s.calls = append(s.calls, op)
		return failures[len(s.calls)-1]
	}
	return s
}

func (s *scripted) image(t *testing.T) rbdutil.Image {
	t.Helper()
	s.Before, s.After = nil, nil
	img, err := s.Get(t.Context(), cluster, ref)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func wantCalls(t *testing.T, s *scripted, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, s.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

var sentinels = map[string]error{
	"pool":        rbdutil.ErrPoolNotFound,
	"denied":      rbdutil.ErrAccessDenied,
	"unreachable": rbdutil.ErrUnreachable,
	"lost":        rbdutil.ErrConnectionLost,
	"timeout":     rbdutil.ErrTimeout,
	"in progress": rbdutil.ErrInProgress,
	"no space":    rbdutil.ErrNoSpace,
	"invalid":     rbdutil.ErrInvalid,
	"unknown":     errors.New("an unknown error"),
}

func TestEnsurePassesErrorsThrough(t *testing.T) {
	t.Parallel()
	misfit := rbdutil.Image{ImageRef: ref, Features: rbdutil.ExclusiveLock} // incomplete, to be replaced
	fitting := rbdutil.Image{ImageRef: ref, Features: rbdutil.Layering}     // incomplete, to be completed
	for name, test := range map[string]struct {
		there      *rbdutil.Image
		failing    int
		calls      []string
		incomplete bool
	}{
		"of the creation":                    {nil, 0, []string{"create"}, false},
		"of completing a new image":          {nil, 1, []string{"create", "update"}, true},
		"of reading the existing image":      {&fitting, 1, []string{"create", "get"}, true},
		"of completing an existing image":    {&fitting, 2, []string{"create", "get", "update"}, true},
		"of removing a mismatch":             {&misfit, 2, []string{"create", "get", "move-to-trash"}, true},
		"of the creation of its replacement": {&misfit, 3, []string{"create", "get", "move-to-trash", "create"}, false},
		"of completing its replacement":      {&misfit, 4, []string{"create", "get", "move-to-trash", "create", "update"}, true},
	} {
		for sentinelName, sentinel := range sentinels {
			t.Run(name+": "+sentinelName, func(t *testing.T) {
				t.Parallel()
				ceph := newScripted(map[int]error{test.failing: sentinel})
				if test.there != nil {
					ceph.Put(*test.there)
				}
				img, err := rbdutil.NewImages(ceph).Ensure(t.Context(), cluster, spec)
				if !errors.Is(err, sentinel) {
					t.Errorf("error %v, want %v", err, sentinel)
				}
				if incomplete := errors.Is(err, rbdutil.ErrIncomplete); incomplete != test.incomplete {
					t.Errorf("error %v: %v is %t, want %t", err, rbdutil.ErrIncomplete, incomplete, test.incomplete)
				}
				if diff := cmp.Diff(rbdutil.Image{}, img); diff != "" {
					t.Errorf("image returned with the error (-want +got):\n%s", diff)
				}
				wantCalls(t, ceph, test.calls...)
			})
		}
	}
}

func TestEnsureMakesNoUnneededCalls(t *testing.T) {
	t.Parallel()
	ceph := newScripted(nil)
	images := rbdutil.NewImages(ceph)
	for _, want := range [][]string{
		{"create", "update"}, // new
		{"create", "get"},    // complete
	} {
		ceph.calls = nil
		if _, err := images.Ensure(t.Context(), cluster, spec); err != nil {
			t.Fatal(err)
		}
		wantCalls(t, ceph, want...)
	}
}

func TestEnsureContinuesAfterALostAnswer(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{rbdfake.OpCreate, rbdfake.OpUpdate} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			ceph := newScripted(nil)
			ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
				if op == lost {
					return rbdutil.ErrConnectionLost
				}
				return nil
			}
			images := rbdutil.NewImages(ceph)
			if _, err := images.Ensure(t.Context(), cluster, spec); !errors.Is(err, rbdutil.ErrConnectionLost) {
				t.Fatalf("error %v, want %v", err, rbdutil.ErrConnectionLost)
			}
			ceph.After = nil
			img, err := images.Ensure(t.Context(), cluster, spec)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(ceph.image(t).Owner(), img.Owner()); diff != "" || img.Owner() != owner || img.Size != spec.Size {
				t.Errorf("image %+v, want one of %s and %d bytes (-stored +returned):\n%s", img, owner, spec.Size, diff)
			}
		})
	}
}

func TestEnsureContinuesIfAnotherClientRemovesTheMismatch(t *testing.T) {
	t.Parallel()
	ceph := newScripted(nil)
	ceph.Put(rbdutil.Image{ImageRef: ref, Features: rbdutil.ExclusiveLock})
	// The existing image is removed after it was read and before it is moved.
	ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, ref rbdutil.ImageRef) error {
		if op == rbdfake.OpGet {
			before := ceph.Before
			ceph.Before, ceph.After = nil, nil
			defer func() { ceph.Before = before }()
			return ceph.TrashByHand(ref)
		}
		return nil
	}
	if _, err := rbdutil.NewImages(ceph).Ensure(t.Context(), cluster, spec); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, ceph, "create", "get", "move-to-trash", "get", "create", "update")
	if got := ceph.image(t); got.Features != rbdutil.Layering || got.Size != spec.Size {
		t.Errorf("image %+v, want one of %+v", got, spec)
	}
}

func TestEnsureCompletesTheRecord(t *testing.T) {
	t.Parallel()
	ceph := newScripted(nil)
	ceph.Put(rbdutil.Image{
		ImageRef: ref, Size: spec.Size, Features: rbdutil.Layering,
		Record: recordOf(func(o *rbdutil.Owner) { o.ClaimNamespace, o.ClaimName, o.VolumeName = "", "", "" }),
	})
	img, err := rbdutil.NewImages(ceph).Ensure(t.Context(), cluster, spec)
	if err != nil {
		t.Fatal(err)
	}
	wantCalls(t, ceph, "create", "get", "update")
	stored := ceph.image(t)
	if diff := cmp.Diff(stored.Record, img.Record); diff != "" {
		t.Errorf("record (-stored +returned):\n%s", diff)
	}
	if diff := cmp.Diff(rbdutil.Record{Owner: owner, ImageID: stored.ID, Size: spec.Size}, stored.Record); diff != "" {
		t.Errorf("record (-want +stored):\n%s", diff)
	}
}

func TestEnsureAcceptsTheFeaturesThatCephAdds(t *testing.T) {
	t.Parallel()
	const lockAndMap = rbdutil.ExclusiveLock | rbdutil.ObjectMap
	ceph, wanted := newScripted(nil), spec
	wanted.Features, wanted.DataPool = lockAndMap, "data"
	ceph.Put(rbdutil.Image{
		ImageRef: ref, Size: spec.Size, Record: ours,
		Features: lockAndMap | rbdutil.FastDiff | 1<<7 | 1<<8, // Ceph adds fast-diff, data-pool and operations
	})
	if _, err := rbdutil.NewImages(ceph).Ensure(t.Context(), cluster, wanted); err != nil {
		t.Error(err)
	}
	wantCalls(t, ceph, "create", "get")
}

func TestEnsureKeepsAnIncompleteImageInUse(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]func(*rbdutil.Image){
		"with a watcher":              func(i *rbdutil.Image) { i.Watchers = []string{"10.0.0.1:0/42"} },
		"with a snapshot":             func(i *rbdutil.Image) { i.Snapshots = []string{"monday"} },
		"with a size":                 func(i *rbdutil.Image) { i.Size, i.Record = spec.Size, ours },
		"with a record of the future": func(i *rbdutil.Image) { i.RecordError = errors.New("metadata of the future") },
		"of another claim":            func(i *rbdutil.Image) { i.Record = recordOf(func(o *rbdutil.Owner) { o.ClaimUID = "other" }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			held := rbdutil.Image{ImageRef: ref, Features: rbdutil.ExclusiveLock, ObjectSize: 1 << 20}
			hold(&held)
			ceph := newScripted(nil)
			ceph.Put(held)
			_, err := rbdutil.NewImages(ceph).Ensure(t.Context(), cluster, spec)
			if !errors.Is(err, rbdutil.ErrMismatch) && !errors.Is(err, rbdutil.ErrForeignImage) {
				t.Errorf("error %v, want ErrForeignImage or ErrMismatch", err)
			}
			wantCalls(t, ceph, "create", "get")
		})
	}
}

func TestEnsureNamesTheConflict(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		there rbdutil.Image
		spec  func(*rbdutil.ImageSpec)
		err   string
	}{
		"without an owner": {
			rbdutil.Image{Size: 1}, nil,
			"image has another owner: kube/kubernetes-dynamic-pvc-1e7f already exists for no known owner",
		},
		"another claim's": {
			rbdutil.Image{Record: recordOf(func(o *rbdutil.Owner) { o.ClaimUID, o.ClaimName = "other", "db" })}, nil,
			"image has another owner: kube/kubernetes-dynamic-pvc-1e7f already exists for claim shop/db",
		},
		"another cluster's": {
			rbdutil.Image{Record: rbdutil.Record{Owner: rbdutil.Owner{ClaimUID: "1e7f", Provisioner: "ceph.com/rbd", ClusterID: "there"}}}, nil,
			"image has another owner: kube/kubernetes-dynamic-pvc-1e7f already exists for claim with UID 1e7f",
		},
		"another provisioner's": {
			rbdutil.Image{Record: recordOf(func(o *rbdutil.Owner) { o.Provisioner = "example.com/rbd" })}, nil,
			"image has another owner: kube/kubernetes-dynamic-pvc-1e7f already exists for claim shop/www-web-0",
		},
		"one whose record cannot be read": {
			rbdutil.Image{RecordError: errors.New("metadata of the future")}, nil,
			"image has another owner: kube/kubernetes-dynamic-pvc-1e7f already exists: metadata of the future",
		},
		"ours of another size": {
			rbdutil.Image{Record: ours, Size: 1 << 20, Features: rbdutil.Layering}, nil,
			"image does not match the request: kube/kubernetes-dynamic-pvc-1e7f already exists with a size of 1048576 bytes, requested are 8388608",
		},
		"ours with other features": {
			rbdutil.Image{Record: ours, Size: spec.Size, Features: rbdutil.Layering | rbdutil.DeepFlatten}, nil,
			"image does not match the request: kube/kubernetes-dynamic-pvc-1e7f already exists with features layering,deep-flatten, requested are layering",
		},
		"ours with other objects": {
			rbdutil.Image{Record: ours, Size: spec.Size, Features: rbdutil.Layering}, func(s *rbdutil.ImageSpec) { s.ObjectSize = 1 << 20 },
			"image does not match the request: kube/kubernetes-dynamic-pvc-1e7f already exists with objects of 4194304 bytes, requested are 1048576",
		},
		"ours without the data pool": {
			rbdutil.Image{Record: ours, Size: spec.Size, Features: rbdutil.Layering}, func(s *rbdutil.ImageSpec) { s.DataPool = "data" },
			"image does not match the request: kube/kubernetes-dynamic-pvc-1e7f already exists with a separate data pool: false, requested: true",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ceph, wanted := newScripted(nil), spec
			test.there.ImageRef = ref
			ceph.Put(test.there)
			if test.spec != nil {
				test.spec(&wanted)
			}
			_, err := rbdutil.NewImages(ceph).Ensure(t.Context(), cluster, wanted)
			if err == nil || err.Error() != test.err {
				t.Errorf("error %v\nwant  %s", err, test.err)
			}
		})
	}
}
