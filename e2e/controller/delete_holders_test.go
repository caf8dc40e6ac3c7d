//go:build e2e

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// deleteInUse: the kubelet reports the volume in use.
func deleteInUse(t *testing.T, d *deletion) {
	deleteHeldByNode(t, d, func(status *corev1.NodeStatus, name corev1.UniqueVolumeName) {
		status.VolumesInUse = []corev1.UniqueVolumeName{name}
	})
}

// deleteAttached: the controller manager reports the volume attached.
func deleteAttached(t *testing.T, d *deletion) {
	deleteHeldByNode(t, d, func(status *corev1.NodeStatus, name corev1.UniqueVolumeName) {
		status.VolumesAttached = []corev1.AttachedVolume{{Name: name}}
	})
}

// deleteHeldByNode needs only a node's object, not a node.
func deleteHeldByNode(t *testing.T, d *deletion, hold func(*corev1.NodeStatus, corev1.UniqueVolumeName)) {
	t.Helper()
	nodes := d.Client.CoreV1().Nodes()
	node, err := nodes.Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{GenerateName: d.Namespace + "-"},
		Spec:       corev1.NodeSpec{Unschedulable: true},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nodes.Delete(context.Background(), node.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	setStatus := func(change func(*corev1.NodeStatus)) {
		d.Await(t, "status of node "+node.Name, framework.Timeout, func(ctx context.Context) error {
			node, err := nodes.Get(ctx, node.Name, metav1.GetOptions{})
			if err == nil {
				change(&node.Status)
				_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
			}
			return err
		})
	}
	setStatus(func(status *corev1.NodeStatus) {
		hold(status, corev1.UniqueVolumeName("kubernetes.io/rbd/"+d.image.Pool+":"+d.image.Name))
	})
	d.refused(t, "image is in use", d.image.String()+" is attached to node "+node.Name)
	d.WantImage(t, d.image, true)
	setStatus(func(status *corev1.NodeStatus) { status.VolumesInUse, status.VolumesAttached = nil, nil })
	d.gone(t)
}

// deleteWithClone: the image has a clone, and its snapshot was removed. Ceph hides such a
// snapshot for as long as the clone needs it.
func deleteWithClone(t *testing.T, d *deletion) {
	clone := rbdutil.ImageRef{Pool: d.image.Pool, Name: "clone-of-" + d.image.Name}
	d.Ceph.Snapshot(t, d.image, "monday")
	d.Ceph.Run(t, "rbd", "clone", "--rbd-default-clone-format", "2", d.image.String()+"@monday", clone.String())
	d.Ceph.Run(t, "rbd", "snap", "rm", "--no-progress", d.image.String()+"@monday")
	d.refused(t, "image has snapshots", d.image.String(), "flatten their clones")
	d.WantImage(t, d.image, true)
	d.RemoveImage(t, clone)
	d.gone(t)
}

// deleteOfNoOwner: the image's owner is unknown.
func deleteOfNoOwner(t *testing.T, d *deletion) {
	for key := range d.ImageMetadata(t, d.image) {
		d.Ceph.Run(t, "rbd", "image-meta", "remove", d.image.String(), key)
	}
	// The command in the event fixes the cause.
	command := fmt.Sprintf(`rbd image-meta set %s rbd-provisioner.ceph.com/image '{"volumeName":%q}'`, d.image, d.volume.Name)
	d.refused(t, "image has another owner", "the metadata of "+d.image.String()+" names no owner", command)
	d.WantImage(t, d.image, true)
	d.SetRecord(t, d.image, fmt.Sprintf(`{"volumeName":%q}`, d.volume.Name))
	d.gone(t)
}

// TestDeletedTwiceAtOnce has two provisioners delete the same volumes at the same time, without
// leader election.
func TestDeletedTwiceAtOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	class := e.Class(t, "twice")
	both := []*process{start(t, e, "--leader-election=false"), start(t, e, "--leader-election=false")}
	var volumes []*corev1.PersistentVolume
	for i := range manyClaims {
		volumes = append(volumes, e.AwaitBound(t, e.Claim(t, fmt.Sprintf("claim-%d", i), class)))
	}
	err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, volume := range volumes {
		e.AwaitVolumeGone(t, volume)
	}
	// The slower provisioner may still be deleting.
	e.Await(t, "all images to be gone", framework.Timeout, func(context.Context) error {
		if left := e.Ceph.Images(t, e.Pool); len(left) > 0 {
			return fmt.Errorf("remaining: %q", left)
		}
		return nil
	})
	if !slices.ContainsFunc(volumes, func(volume *corev1.PersistentVolume) bool {
		return strings.Contains(both[0].Log(), `"Deleted image" volume="`+volume.Name) && strings.Contains(both[1].Log(), `"Deleted image" volume="`+volume.Name)
	}) {
		t.Error("no image was deleted twice, so the test was not effective")
	}
}
