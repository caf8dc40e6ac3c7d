package rbdutil_test

import (
	"context"
	"errors"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

func TestDeletePassesErrorsThrough(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		failing int
		calls   []string
	}{
		"of reading, and removes nothing": {0, []string{"get"}},
		"of moving it to the trash":       {1, []string{"get", "move-to-trash"}},
	} {
		for sentinelName, sentinel := range sentinels {
			t.Run(name+": "+sentinelName, func(t *testing.T) {
				t.Parallel()
				ceph := newScripted(nil)
				if _, err := rbdutil.NewImages(ceph).Ensure(t.Context(), cluster, spec); err != nil {
					t.Fatal(err)
				}
				ceph.calls = nil
				ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
					ceph.calls = append(ceph.calls, op)
					if len(ceph.calls)-1 == test.failing {
						return sentinel
					}
					return nil
				}
				if err := rbdutil.NewImages(ceph).Delete(t.Context(), cluster, ref, precondition, 0); !errors.Is(err, sentinel) {
					t.Errorf("error %v, want %v", err, sentinel)
				}
				wantCalls(t, ceph, test.calls...)
				ceph.image(t) // it still exists
			})
		}
	}
}

func TestDeleteSucceedsIfAnotherClientRemovesTheImage(t *testing.T) {
	t.Parallel()
	ceph := newScripted(nil)
	images := rbdutil.NewImages(ceph)
	if _, err := images.Ensure(t.Context(), cluster, spec); err != nil {
		t.Fatal(err)
	}
	before := ceph.Before
	ceph.Before = func(ctx context.Context, op string, c rbdutil.Cluster, ref rbdutil.ImageRef) error {
		if op == rbdfake.OpMoveToTrash {
			ceph.DeletePool(ref.Pool) // with its images
			ceph.AddPool(ref.Pool)
		}
		return before(ctx, op, c, ref)
	}
	if err := images.Delete(t.Context(), cluster, ref, precondition, 0); err != nil {
		t.Error(err)
	}
	wantCalls(t, ceph, "create", "update", "get", "move-to-trash", "get")
}

// A full pool without a trash behaves like this.
func TestDeleteFailsIfTheImageCanStillBeRead(t *testing.T) {
	t.Parallel()
	ceph := newScripted(nil)
	images := rbdutil.NewImages(ceph)
	if _, err := images.Ensure(t.Context(), cluster, spec); err != nil {
		t.Fatal(err)
	}
	ceph.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpMoveToTrash {
			return rbdutil.ErrImageNotFound
		}
		return nil
	}
	if err := images.Delete(t.Context(), cluster, ref, precondition, 0); !errors.Is(err, rbdutil.ErrNotRemoved) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrNotRemoved)
	}
	ceph.image(t) // it still exists
}

func TestDeleteReturnsALostAnswerAsTimeout(t *testing.T) {
	t.Parallel()
	ceph := newScripted(nil)
	images := rbdutil.NewImages(ceph)
	if _, err := images.Ensure(t.Context(), cluster, spec); err != nil {
		t.Fatal(err)
	}
	ceph.After = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if op == rbdfake.OpMoveToTrash {
			return rbdutil.ErrTimeout
		}
		return nil
	}
	if err := images.Delete(t.Context(), cluster, ref, precondition, 0); !errors.Is(err, rbdutil.ErrTimeout) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrTimeout)
	}
	ceph.After = nil
	if err := images.Delete(t.Context(), cluster, ref, precondition, 0); err != nil {
		t.Error(err)
	}
}

func TestDeleteNamesTheHolder(t *testing.T) {
	t.Parallel()
	ours := func(i *rbdutil.Image) { i.Record.VolumeName = "pvc-1e7f" }
	for name, test := range map[string]struct {
		change       func(*rbdutil.Image)
		allowUnknown bool
		err          string
		// inMove: the holder appears only after the image was read.
		inMove bool
	}{
		"no owner in the metadata": {
			change: func(*rbdutil.Image) {},
			err: "image has another owner: the metadata of kube/kubernetes-dynamic-pvc-1e7f names no owner; " +
				"if it is the image of volume pvc-1e7f, set its owner with: " +
				`rbd image-meta set kube/kubernetes-dynamic-pvc-1e7f rbd-provisioner.ceph.com/image '{"volumeName":"pvc-1e7f"}'`,
		},
		"a record that cannot be read": {
			change: func(i *rbdutil.Image) { i.RecordError = errors.New("metadata of the future") },
			err: "image has another owner: kube/kubernetes-dynamic-pvc-1e7f: metadata of the future; " +
				"if it is the image of volume pvc-1e7f, set its owner with: " +
				`rbd image-meta set kube/kubernetes-dynamic-pvc-1e7f rbd-provisioner.ceph.com/image '{"volumeName":"pvc-1e7f"}'`,
			allowUnknown: true,
		},
		"another owner in the metadata": {
			change: func(i *rbdutil.Image) {
				i.Record.Owner = rbdutil.Owner{ClaimUID: "2", VolumeName: "pvc-2", ClusterID: "there"}
			},
			err: "image has another owner: the metadata of kube/kubernetes-dynamic-pvc-1e7f names claim with UID 2 " +
				`(volume "pvc-2", cluster "there"), not volume "pvc-1e7f" of cluster "here"`,
		},
		"another owner, with AllowUnknown": {
			change:       func(i *rbdutil.Image) { i.Record.ClaimUID = "2" },
			allowUnknown: true,
			err: "image has another owner: the metadata of kube/kubernetes-dynamic-pvc-1e7f names claim with UID 2 " +
				`(volume "", cluster ""), not volume "pvc-1e7f" of cluster "here"`,
		},
		"watchers": {
			change: func(i *rbdutil.Image) { ours(i); i.Watchers = []string{"10.0.0.1:0/42", "10.0.0.2:0/7"} },
			err:    "image is in use: kube/kubernetes-dynamic-pvc-1e7f is mapped or open at 10.0.0.1:0/42, 10.0.0.2:0/7",
		},
		"snapshots": {
			change: func(i *rbdutil.Image) { ours(i); i.Snapshots = []string{"monday", "tuesday"} },
			err:    "image has snapshots: kube/kubernetes-dynamic-pvc-1e7f has monday, tuesday",
			inMove: true,
		},
		"snapshots of an image without an owner": {
			change:       func(i *rbdutil.Image) { i.Snapshots = []string{"monday"} },
			allowUnknown: true,
			err:          "image has snapshots: kube/kubernetes-dynamic-pvc-1e7f has monday",
			inMove:       true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := rbdutil.Image{ImageRef: ref, Size: spec.Size, Features: rbdutil.Layering}
			test.change(&img)
			ceph := newScripted(nil)
			ceph.Put(img)
			precondition := precondition
			precondition.AllowUnknown = test.allowUnknown
			err := rbdutil.NewImages(ceph).Delete(t.Context(), cluster, ref, precondition, 0)
			if err == nil || err.Error() != test.err {
				t.Errorf("error %v\nwant  %s", err, test.err)
			}
			calls := []string{"get"}
			if test.inMove {
				calls = append(calls, "move-to-trash")
			}
			wantCalls(t, ceph, calls...)
		})
	}
}

func TestDeleteAcceptsAnIncompleteRecordOfTheVolume(t *testing.T) {
	t.Parallel()
	for name, owner := range map[string]rbdutil.Owner{
		"the volume alone":          {VolumeName: "pvc-1e7f"},
		"the volume and the claim":  {VolumeName: "pvc-1e7f", ClaimUID: "1e7f"},
		"the volume in our cluster": {VolumeName: "pvc-1e7f", ClusterID: "here"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ceph := newScripted(nil)
			ceph.Put(rbdutil.Image{ImageRef: ref, Size: spec.Size, Record: rbdutil.Record{Owner: owner}})
			if err := rbdutil.NewImages(ceph).Delete(t.Context(), cluster, ref, precondition, 0); err != nil {
				t.Error(err)
			}
			if names := ceph.Names(); len(names) > 0 {
				t.Errorf("images %v still exist", names)
			}
		})
	}
}
