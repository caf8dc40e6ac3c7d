package app

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// A key from `ceph-authtool --gen-print-key` that is not used by any cluster.
const exampleKey = "AQAZ3WpnAAAAABAAyyBqS9+2rC4JdGtDVIlpUQ=="

func exampleSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ceph", Name: "key"},
		Data:       map[string][]byte{"key": []byte(exampleKey)},
	}
}

func exampleClass() *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: "rbd"},
		Provisioner: "ceph.com/rbd",
		Parameters: map[string]string{
			"monitors": "10.0.0.1:6789", "pool": "kube", "adminSecretName": "key", "adminSecretNamespace": "ceph",
			"userSecretName": "key", "userSecretNamespace": "ceph",
		},
		ReclaimPolicy:     ptr.To(corev1.PersistentVolumeReclaimDelete),
		VolumeBindingMode: ptr.To(storagev1.VolumeBindingImmediate),
	}
}

// exampleClaim is a claim that the controller manager has assigned to this provisioner.
func exampleClaim(uid types.UID) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "www-" + string(uid), UID: uid,
			Annotations: map[string]string{"volume.kubernetes.io/storage-provisioner": "ceph.com/rbd"},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To("rbd"),
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			},
		},
	}
}

func testInformers(t *testing.T, client kubernetes.Interface, resync time.Duration) *informers {
	t.Helper()
	i, err := newInformers(client, resync)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// blocking makes every operation of that name wait until proceed is called. It reports each operation in
// arrived.
func blocking(ceph *rbdfake.Ceph, op string) (arrived <-chan struct{}, proceed func()) {
	arrivals, gate := make(chan struct{}, 100), make(chan struct{})
	ceph.Before = func(_ context.Context, this string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if this == op {
			arrivals <- struct{}{}
			<-gate
		}
		return nil
	}
	return arrivals, func() { close(gate) }
}
