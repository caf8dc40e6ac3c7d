package provisioner

import (
	"context"
	"errors"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// predecessors returns a volume of the retired rbd-provisioner with additional annotations:
// its image has no owner, and the volume names no secret.
func predecessors(annotations map[string]string) *corev1.PersistentVolume {
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: "pvc-2019",
			Annotations: map[string]string{
				"pv.kubernetes.io/provisioned-by": "ceph.com/rbd", "rbdProvisionerIdentity": "ceph.com/rbd",
			},
		},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: "old",
			PersistentVolumeSource: corev1.PersistentVolumeSource{RBD: &corev1.RBDPersistentVolumeSource{
				CephMonitors: []string{"10.1.0.1:6789"}, RBDPool: "kube", RBDImage: "kubernetes-dynamic-pvc-aaaa",
				RadosUser: "node", SecretRef: &corev1.SecretReference{Name: "user"},
			}},
		},
	}
	maps.Copy(volume.Annotations, annotations)
	return volume
}

// oldClass returns a class of the predecessor whose pool and monitors were changed later.
func oldClass(changes map[string]string) *storagev1.StorageClass {
	class := fixture.Class(map[string]string{"monitors": "10.9.9.9:6789", "pool": "data"})
	maps.Copy(class.Parameters, changes)
	class.Name = "old"
	return class
}

const annotate = ": annotate the volume with volume.kubernetes.io/provisioner-deletion-secret-name and " +
	"volume.kubernetes.io/provisioner-deletion-secret-namespace (the secret with the key) and rbd-provisioner.ceph.com/admin-id (the cephx user)"

func TestDeleteOfVolumesOfThePredecessor(t *testing.T) {
	t.Parallel()
	type set = map[string]string
	const name, namespace, id = annDeletionSecretName, annDeletionSecretNamespace, annAdminID
	for what, test := range map[string]struct {
		annotations set
		class       *storagev1.StorageClass
		user        string // the user that Ceph authenticates
		err         string
	}{
		"with its class":         {class: oldClass(nil), user: "kube"},
		"with annotations alone": {annotations: set{name: "admin", namespace: "ceph", id: "root"}, user: "root"},
		"annotations come before the class": {
			annotations: set{name: "admin", namespace: "ceph", id: "root"}, class: oldClass(set{"adminSecretName": "lost"}), user: "root"},
		"the class fills in the user": {
			annotations: set{name: "admin", namespace: "ceph"}, class: oldClass(set{"adminSecretName": "lost", "adminSecretNamespace": "lost"}), user: "kube"},
		"the class fills in the secret": {
			annotations: set{id: "root"}, class: oldClass(nil), user: "root"},
		"the class fills in the secret's namespace": {
			annotations: set{name: "admin", id: "root"}, class: oldClass(set{"adminSecretName": "lost"}), user: "root"},
		"without anything": {
			err: `the volume lacks annotations for its admin user, and its class cannot replace them (StorageClass "old" does not exist)` + annotate},
		"with some of the annotations": {
			annotations: set{name: "admin"},
			err:         `the volume lacks annotations for its admin user, and its class cannot replace them (StorageClass "old" does not exist)` + annotate},
		"with a class that is wrong in what deletion does not need": {
			class: oldClass(set{"imageFormat": "1", "fsType": "ext2", "colour": "red"}), user: "kube"},
		"with a class that names no admin secret": {
			class: oldClass(set{"adminSecretName": ""}),
			err:   `the volume lacks annotations for its admin user, and its class cannot replace them (StorageClass old has no adminSecretName)` + annotate},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if test.class != nil {
				fixture.Add(t, w.Classes, test.class)
			}
			volume := w.Release(t, predecessors(test.annotations))
			w.Ceph.Put(rbdutil.Image{ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-aaaa"}, Size: 1 << 30})
			w.Ceph.Before = func(_ context.Context, op string, c rbdutil.Cluster, _ rbdutil.ImageRef) error {
				if want := "Ceph at 10.1.0.1:6789 as client." + test.user; c.String() != want {
					t.Errorf("%s on %s, want %s", op, c, want)
				}
				return nil
			}
			err := w.Delete(t.Context(), volume)
			if fixture.TextOf(err) != test.err {
				t.Errorf("error %v\nwant  %s", err, test.err)
			}
			if err == nil {
				w.WantImages(t)
			} else {
				w.WantImages(t, "kube/kubernetes-dynamic-pvc-aaaa")
			}
		})
	}
}

func TestDeleteFindsTheClassByItsOldAnnotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fixture.Add(t, w.Classes, oldClass(nil))
	volume := predecessors(map[string]string{"volume.beta.kubernetes.io/storage-class": "old"})
	volume.Spec.StorageClassName = ""
	w.Release(t, volume)
	if err := w.Delete(t.Context(), volume); err != nil {
		t.Error(err)
	}
}

func TestDeleteOfAPredecessorsVolumeKeepsAForeignImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fixture.Add(t, w.Classes, oldClass(nil))
	w.Ceph.Put(rbdutil.Image{
		ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "kubernetes-dynamic-pvc-aaaa"}, Size: 1 << 30,
		Record: rbdutil.Record{Owner: rbdutil.Owner{VolumeName: "pvc-2020"}},
	})
	if err := w.Delete(t.Context(), w.Release(t, predecessors(nil))); !errors.Is(err, rbdutil.ErrForeignImage) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrForeignImage)
	}
	w.WantImages(t, "kube/kubernetes-dynamic-pvc-aaaa")
}

// brokenClasses is a lister whose Get fails.
type brokenClasses struct {
	storagelisters.StorageClassLister
}

func (brokenClasses) Get(string) (*storagev1.StorageClass, error) {
	return nil, errors.New("cache is broken")
}

func TestDeleteReportsThatTheClassCannotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Clusters.Classes = brokenClasses{}
	want := "the volume lacks annotations for its admin user, and its class cannot replace them (cache is broken)" + annotate
	if err := w.Delete(t.Context(), predecessors(nil)); fixture.TextOf(err) != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}
}
