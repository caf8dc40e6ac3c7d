package provisioner

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// provisioned returns a world with one volume that is to be deleted, and its image.
func provisioned(t *testing.T) (*world, *corev1.PersistentVolume) {
	t.Helper()
	w := newWorld(t)
	return w, w.Release(t, w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim())))
}

// nodeWith returns a node that reports volumes as in use and as attached.
func nodeWith(name string, inUse, attached []string) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, v := range inUse {
		node.Status.VolumesInUse = append(node.Status.VolumesInUse, corev1.UniqueVolumeName(v))
	}
	for _, v := range attached {
		node.Status.VolumesAttached = append(node.Status.VolumesAttached, corev1.AttachedVolume{Name: corev1.UniqueVolumeName(v)})
	}
	return node
}

func TestDeleteMovesTheImageToTheTrash(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	// The volume suffices: there is no class.
	w.Ceph.Before = func(_ context.Context, op string, c rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if c.String() != "Ceph at 10.0.0.1:6789,10.0.0.2:6789 as client.kube" || c.Key.Reveal() != fixture.AdminKey {
			t.Errorf("%s on %s, or with another key", op, c)
		}
		return nil
	}
	before := volume.DeepCopy()
	for range 2 { // a missing image is success
		if err := w.Delete(t.Context(), volume); err != nil {
			t.Fatal(err)
		}
		w.WantImages(t)
	}
	if diff := cmp.Diff(before, volume); diff != "" {
		t.Errorf("the library's volume was changed (-before +after):\n%s", diff)
	}
}

func TestDeleteRemovesAPartialImage(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	if err := w.Ceph.LeavePartial(fixture.ImageRef("1e7f")); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), volume); err != nil {
		t.Error(err)
	}
	w.WantImages(t)
}

func TestDeleteKeepsTheImageAndReportsWhy(t *testing.T) {
	t.Parallel()
	const (
		inUse  = "kubernetes.io/rbd/kube:kubernetes-dynamic-pvc-1e7f"
		others = "kubernetes.io/rbd/kube:kubernetes-dynamic-pvc-2"
		free   = ": the image will be deleted when it is no longer in use"
	)
	for name, test := range map[string]struct {
		prepare func(t *testing.T, w *world, volume *corev1.PersistentVolume)
		is      error
		err     string
	}{
		"nodes watch it": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				w.Change(t, func(i *rbdutil.Image) { i.Watchers = []string{"10.0.0.7:0/42", "10.0.0.8:0/7"} })
			},
			rbdutil.ErrImageInUse,
			"image is in use: kube/kubernetes-dynamic-pvc-1e7f is mapped or open at 10.0.0.7:0/42, 10.0.0.8:0/7" + free,
		},
		"a node has it in use": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				fixture.Add(t, w.Nodes, nodeWith("a", []string{others}, []string{others}), nodeWith("b", []string{others, inUse}, nil))
			},
			rbdutil.ErrImageInUse,
			"image is in use: kube/kubernetes-dynamic-pvc-1e7f is attached to node b" + free,
		},
		"it is attached to nodes": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				fixture.Add(t, w.Nodes, nodeWith("c", nil, []string{inUse}), nodeWith("a", []string{inUse}, []string{inUse}), nodeWith("b", nil, nil))
			},
			rbdutil.ErrImageInUse,
			"image is in use: kube/kubernetes-dynamic-pvc-1e7f is attached to node a, c" + free,
		},
		"it has snapshots": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				w.Change(t, func(i *rbdutil.Image) { i.Snapshots = []string{"monday", "tuesday"} })
			},
			rbdutil.ErrHasSnapshots,
			"image has snapshots: kube/kubernetes-dynamic-pvc-1e7f has monday, tuesday: if their data is not needed, flatten their clones and remove them (`rbd snap ls --all`, `rbd flatten`, `rbd snap rm`)",
		},
		"a person has locked it": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				fixture.Must(t, w.Ceph.Lock(fixture.ImageRef("1e7f")))
			},
			rbdutil.ErrLocked,
			"image is locked: kube/kubernetes-dynamic-pvc-1e7f by maintenance client.4242: remove the lock if it is no longer needed " +
				"(`rbd lock ls kube/kubernetes-dynamic-pvc-1e7f`, `rbd lock rm kube/kubernetes-dynamic-pvc-1e7f ID LOCKER`)",
		},
		"it is in a group": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				fixture.Must(t, w.Ceph.Group(fixture.ImageRef("1e7f")))
			},
			rbdutil.ErrInGroup,
			"image is in a group: kube/kubernetes-dynamic-pvc-1e7f is in group kubernetes-dynamic-pvc-1e7f-group: remove the image from its group (`rbd group image rm`)",
		},
		"it is mirrored": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				fixture.Must(t, w.Ceph.Mirror(fixture.ImageRef("1e7f")))
			},
			rbdutil.ErrMirrored,
			"image is mirrored: kube/kubernetes-dynamic-pvc-1e7f: disable its mirroring (`rbd mirror image disable kube/kubernetes-dynamic-pvc-1e7f`)",
		},
		"its record cannot be read": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				fixture.Must(t, w.Ceph.SetRecord(fixture.ImageRef("1e7f"), `{"volumeName":"pvc-1e7f","keep":true}`))
			},
			rbdutil.ErrForeignImage,
			`image has another owner: kube/kubernetes-dynamic-pvc-1e7f: metadata rbd-provisioner.ceph.com/image: json: unknown field "keep"; ` +
				`if it is the image of volume pvc-1e7f, set its owner with: rbd image-meta set kube/kubernetes-dynamic-pvc-1e7f rbd-provisioner.ceph.com/image '{"volumeName":"pvc-1e7f"}'`,
		},
		"it is another volume's": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				w.Change(t, func(i *rbdutil.Image) { i.Record.VolumeName = "pvc-2" })
			},
			rbdutil.ErrForeignImage,
			"image has another owner: the metadata of kube/kubernetes-dynamic-pvc-1e7f names claim shop/www-web-0 " +
				`(volume "pvc-2", cluster "here"), not volume "pvc-1e7f" of cluster "here"`,
		},
		"it is another cluster's": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				w.Change(t, func(i *rbdutil.Image) { i.Record.ClusterID = "there" })
			},
			rbdutil.ErrForeignImage,
			"image has another owner: the metadata of kube/kubernetes-dynamic-pvc-1e7f names claim shop/www-web-0 " +
				`(volume "pvc-1e7f", cluster "there"), not volume "pvc-1e7f" of cluster "here"`,
		},
		"it has no owner": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				w.Change(t, func(i *rbdutil.Image) { i.Record = rbdutil.Record{} })
			},
			rbdutil.ErrForeignImage,
			"image has another owner: the metadata of kube/kubernetes-dynamic-pvc-1e7f names no owner; if it is the image of volume pvc-1e7f, " +
				`set its owner with: rbd image-meta set kube/kubernetes-dynamic-pvc-1e7f rbd-provisioner.ceph.com/image '{"volumeName":"pvc-1e7f"}'`,
		},
		"its secret is gone": {
			func(t *testing.T, w *world, _ *corev1.PersistentVolume) {
				if err := w.Client.CoreV1().Secrets("ceph").Delete(t.Context(), "admin", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			},
			nil, "admin secret ceph/admin does not exist: create it with the output of `ceph auth get-key` under \"key\"",
		},
		"Ceph denies it": {
			func(_ *testing.T, w *world, _ *corev1.PersistentVolume) {
				w.Ceph.Before = func(context.Context, string, rbdutil.Cluster, rbdutil.ImageRef) error { return rbdutil.ErrAccessDenied }
			},
			rbdutil.ErrAccessDenied,
			"access denied by Ceph: check that secret ceph/admin holds the key of client.kube and that its capabilities include " +
				"mon 'profile rbd' and osd 'profile rbd pool=kube' (`ceph auth get client.kube`)",
		},
		"the volume has no rbd source": {
			func(_ *testing.T, _ *world, volume *corev1.PersistentVolume) {
				volume.Spec.RBD, volume.Spec.CSI = nil, &corev1.CSIPersistentVolumeSource{}
			},
			nil, "the image of the volume is unknown, because the volume has no rbd source with monitors, pool and image: delete the image (`rbd rm`), remove the volume's finalizers (`kubectl patch`) and delete the volume",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := provisioned(t)
			test.prepare(t, w, volume)
			err := w.Delete(t.Context(), volume)
			if fixture.TextOf(err) != test.err || (test.is != nil && !errors.Is(err, test.is)) {
				t.Errorf("error %v\nwant  %s", err, test.err)
			}
			fixture.WantNoKey(t, fixture.TextOf(err))
			w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
		})
	}
}

func TestDeleteSucceedsWhenTheImageIsFree(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	w.Change(t, func(i *rbdutil.Image) { i.Watchers = []string{"10.0.0.7:0/42"} })
	if err := w.Delete(t.Context(), volume); !errors.Is(err, rbdutil.ErrImageInUse) {
		t.Fatalf("error %v, want %v", err, rbdutil.ErrImageInUse)
	}
	w.Change(t, func(i *rbdutil.Image) { i.Watchers = nil })
	if err := w.Delete(t.Context(), volume); err != nil {
		t.Error(err)
	}
	w.WantImages(t)
}

func TestDeleteFailsInAMissingPool(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	w.Ceph.DeletePool("kube")
	err := w.Delete(t.Context(), volume)
	want := "open pool kube: pool not found: the volume is kept because pool kube may come back; if it will not, remove the volume's finalizers (`kubectl patch`) and delete the volume"
	if fixture.TextOf(err) != want || !errors.Is(err, rbdutil.ErrPoolNotFound) {
		t.Errorf("error %v\nwant  %s", err, want)
	}
}

func TestDeleteCanBeRetriedAfterEachFailure(t *testing.T) {
	t.Parallel()
	for name, test := range failures {
		for _, op := range []string{rbdfake.OpGet, rbdfake.OpMoveToTrash} {
			for when, after := range map[string]bool{"before": false, "after": true} {
				t.Run(name+" "+when+" "+op, func(t *testing.T) {
					t.Parallel()
					w, volume := provisioned(t)
					w.FailOnce(op, after, test.err)
					err := w.Delete(t.Context(), volume)
					want := test.err
					switch gone := errors.Is(want, rbdutil.ErrImageNotFound); {
					case gone && (op == rbdfake.OpGet || !after):
						want = rbdutil.ErrNotRemoved // because the image still exists
					case gone:
						want = nil
					}
					if !errors.Is(err, want) {
						t.Fatalf("error %v, want %v", err, want)
					}
					w.Ceph.Before, w.Ceph.After = nil, nil
					if err := w.Delete(t.Context(), volume); err != nil {
						t.Error(err)
					}
					w.WantImages(t)
				})
			}
		}
	}
}

// A deleted image uses space until it is removed from the trash.
func TestDeleteSchedulesCleaningOfTheTrash(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	if err := w.Delete(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fixture.Trash{After: []string{"pvc-1e7f in kube"}}, *w.Trash); diff != "" {
		t.Errorf("pools whose trash is cleaned (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{fixture.ImageRef("1e7f").String()}, w.Ceph.TrashedNames()); diff != "" {
		t.Errorf("in the trash (-want +got):\n%s", diff)
	}
}

func TestDeleteTimesOut(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	w.Timeout = 10 * time.Millisecond
	w.Ceph.Before = func(ctx context.Context, _ string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		<-ctx.Done()
		return nil
	}
	err := w.Delete(t.Context(), volume)
	want := "get image kube/kubernetes-dynamic-pvc-1e7f: Ceph did not answer in time: check the cluster's health (`ceph -s`) and the osd capabilities of client.kube (`ceph auth get client.kube`); will be retried automatically"
	if fixture.TextOf(err) != want || !errors.Is(err, rbdutil.ErrTimeout) {
		t.Errorf("error %v\nwant  %s", err, want)
	}
}

// brokenNodes is a lister whose List fails.
type brokenNodes struct{ corelisters.NodeLister }

func (brokenNodes) List(labels.Selector) ([]*corev1.Node, error) {
	return nil, errors.New("cache is broken")
}

func TestDeleteFailsWithoutTheNodes(t *testing.T) {
	t.Parallel()
	w, volume := provisioned(t)
	w.Provisioner.Nodes = brokenNodes{}
	if err := w.Delete(t.Context(), volume); err == nil || !strings.Contains(err.Error(), "list nodes: cache is broken") {
		t.Errorf("error %v", err)
	}
	w.WantImages(t, "kube/kubernetes-dynamic-pvc-1e7f")
}
