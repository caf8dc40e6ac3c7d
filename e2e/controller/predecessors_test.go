//go:build e2e

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// The tests in this file are not parallel: their provisioners share a name, and the lease and
// the role of deploy/base for it.

// newDefaultEnv creates an environment for a provisioner with the default name.
func newDefaultEnv(t *testing.T) *framework.Env {
	t.Helper()
	e := newEnv(t)
	e.Provisioner = provisioner.DefaultName
	e.Await(t, "the lease of "+e.Provisioner+" (no other provisioner of this name may run in the cluster)", framework.Timeout,
		func(ctx context.Context) error {
			lease, err := e.Client.CoordinationV1().Leases(framework.AccountNamespace).Get(ctx, e.LeaseName(), metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			lasts := time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second
			if holder(lease) != "" && time.Since(lease.Spec.RenewTime.Time) < lasts {
				return fmt.Errorf("%s holds it", holder(lease))
			}
			return nil
		})
	// The provisioner must create the lease, as in a new cluster.
	err := e.Client.CoordinationV1().Leases(framework.AccountNamespace).Delete(t.Context(), e.LeaseName(), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return e
}

func TestClassesOfThePredecessors(t *testing.T) {
	e := newDefaultEnv(t)
	start(t, e)
	for name, class := range map[string]string{
		"kubernetes": e.KubernetesClass(t),
		"retired":    e.RetiredClass(t),
	} {
		claim := e.Claim(t, name, class)
		volume := e.AwaitBound(t, claim)
		ref := framework.ImageOf(volume)
		if want := (rbdutil.ImageRef{Pool: "kube", Name: e.ImageFor(claim).Name}); ref != want {
			t.Errorf("%s: image %s, want %s", name, ref, want)
		}
		if volume.Spec.RBD.RadosUser != "kube" {
			t.Errorf("%s: user %s", name, volume.Spec.RBD.RadosUser)
		}
		e.WantImage(t, ref, true)
		e.DeleteClaim(t, name)
		e.AwaitVolumeGone(t, volume)
		e.WantImage(t, ref, false)
	}
}

func TestVolumesOfTheRetiredProvisioner(t *testing.T) {
	e := newDefaultEnv(t)
	// These are created before the provisioner runs, which would serve the claims.
	there, gone := e.RetiredClass(t), e.RetiredClass(t)
	withClass := retiredVolume(t, e, "with-class", there)
	withoutClass := retiredVolume(t, e, "without-class", gone)
	start(t, e)

	e.DeleteClaim(t, "with-class")
	e.AwaitVolumeGone(t, withClass)
	e.WantImage(t, framework.ImageOf(withClass), false)

	parameters := getClass(t, e, gone).Parameters
	e.DeleteClass(t, gone)
	e.DeleteClaim(t, "without-class")
	event := e.AwaitEvent(t, withoutClass, framework.Timeout, "VolumeFailedDelete",
		`StorageClass "`+gone+`" does not exist`, "annotate the volume with",
		"volume.kubernetes.io/provisioner-deletion-secret-name", "volume.kubernetes.io/provisioner-deletion-secret-namespace",
		"rbd-provisioner.ceph.com/admin-id")
	e.AwaitRepeat(t, event)
	e.WantImage(t, framework.ImageOf(withoutClass), true)
	annotate(t, e, withoutClass, map[string]string{
		"volume.kubernetes.io/provisioner-deletion-secret-name":      parameters["adminSecretName"],
		"volume.kubernetes.io/provisioner-deletion-secret-namespace": parameters["adminSecretNamespace"],
		"rbd-provisioner.ceph.com/admin-id":                          parameters["adminId"],
	})
	e.AwaitVolumeGone(t, withoutClass)
	e.WantImage(t, framework.ImageOf(withoutClass), false)
}

// retiredVolume creates a claim, its image and its volume like the retired provisioner.
func retiredVolume(t *testing.T, e *framework.Env, name, class string) *corev1.PersistentVolume {
	t.Helper()
	claim := e.Claim(t, name, class)
	parameters := getClass(t, e, class).Parameters
	ref := rbdutil.ImageRef{Pool: parameters["pool"], Name: "kubernetes-dynamic-pvc-" + string(uuid.NewUUID())}
	e.Ceph.Run(t, "rbd", "create", "--size", "1024", "--image-format", "2", "--image-feature", "layering", ref.String())
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: "pvc-" + string(claim.UID),
			Annotations: map[string]string{
				"pv.kubernetes.io/provisioned-by": provisioner.DefaultName,
				"rbdProvisionerIdentity":          provisioner.DefaultName,
			},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1024Mi")},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName:              class,
			VolumeMode:                    ptr.To(corev1.PersistentVolumeFilesystem),
			ClaimRef: &corev1.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{RBD: &corev1.RBDPersistentVolumeSource{
				CephMonitors: e.Monitors, RBDPool: ref.Pool, RBDImage: ref.Name, RadosUser: parameters["userId"],
				SecretRef: &corev1.SecretReference{Name: parameters["userSecretName"], Namespace: parameters["userSecretNamespace"]},
			}},
		},
	}
	if _, err := e.Client.CoreV1().PersistentVolumes().Create(t.Context(), volume, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return e.AwaitBound(t, claim)
}

// annotate sets annotations like `kubectl annotate`.
func annotate(t *testing.T, e *framework.Env, volume *corev1.PersistentVolume, annotations map[string]string) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Client.CoreV1().PersistentVolumes().Patch(t.Context(), volume.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func getClass(t *testing.T, e *framework.Env, name string) *storagev1.StorageClass {
	t.Helper()
	class, err := e.Client.StorageV1().StorageClasses().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return class
}
