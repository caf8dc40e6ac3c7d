package framework

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// ClaimOption modifies a claim before it is created.
type ClaimOption func(*corev1.PersistentVolumeClaim)

// Size requests a size other than 1Gi.
func Size(size string) ClaimOption {
	return func(claim *corev1.PersistentVolumeClaim) {
		claim.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
	}
}

// Modes requests access modes other than ReadWriteOnce.
func Modes(modes ...corev1.PersistentVolumeAccessMode) ClaimOption {
	return func(claim *corev1.PersistentVolumeClaim) { claim.Spec.AccessModes = modes }
}

// Block requests volume mode Block.
func Block(claim *corev1.PersistentVolumeClaim) {
	claim.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
}

// CloneOf requests a clone of another claim.
func CloneOf(source string) ClaimOption {
	return func(claim *corev1.PersistentVolumeClaim) {
		claim.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: source}
	}
}

// ClassByAnnotation sets the class by the annotation of Kubernetes 1.4.
func ClassByAnnotation(class string) ClaimOption {
	return func(claim *corev1.PersistentVolumeClaim) {
		claim.Spec.StorageClassName = nil
		claim.Annotations = map[string]string{corev1.BetaStorageClassAnnotation: class}
	}
}

// AssignedTo assigns the claim to a provisioner, which otherwise the controller manager does. It
// serves claims one by one, so that a claim can wait for those of all other tests.
func AssignedTo(provisioner string) ClaimOption {
	return func(claim *corev1.PersistentVolumeClaim) {
		claim.Annotations = map[string]string{"volume.kubernetes.io/storage-provisioner": provisioner}
	}
}

// Claim creates a claim of 1Gi, ReadWriteOnce.
func (e *Env) Claim(t *testing.T, name, class string, options ...ClaimOption) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim, err := e.TryClaim(t.Context(), name, class, options...)
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

// TryClaim is Claim for goroutines, which must not end the test.
func (e *Env) TryClaim(ctx context.Context, name, class string, options ...ClaimOption) (*corev1.PersistentVolumeClaim, error) {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			},
		},
	}
	for _, option := range options {
		option(claim)
	}
	return e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Create(ctx, claim, metav1.CreateOptions{})
}

// GetClaim reads the current state of a claim.
func (e *Env) GetClaim(t *testing.T, name string) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim, err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

// AwaitBound waits until the claim is bound and returns its volume.
func (e *Env) AwaitBound(t *testing.T, claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	t.Helper()
	return e.AwaitBoundIn(t, claim, Timeout)
}

// AwaitBoundIn is AwaitBound with another timeout.
func (e *Env) AwaitBoundIn(t *testing.T, claim *corev1.PersistentVolumeClaim, timeout time.Duration) *corev1.PersistentVolume {
	t.Helper()
	var volume *corev1.PersistentVolume
	e.Await(t, "claim "+claim.Name+" to be bound", timeout, func(ctx context.Context) error {
		now, err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Get(ctx, claim.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if now.Status.Phase != corev1.ClaimBound {
			return fmt.Errorf("it is %s", now.Status.Phase)
		}
		volume, err = e.Client.CoreV1().PersistentVolumes().Get(ctx, now.Spec.VolumeName, metav1.GetOptions{})
		if err == nil && volume.Status.Phase != corev1.VolumeBound {
			err = fmt.Errorf("its volume is %s", volume.Status.Phase)
		}
		return err
	}, claim)
	return volume
}

// AwaitVolume waits until the provisioner has created the volume of a claim. It does not wait
// until the controller manager has bound the two, for the reason that AssignedTo gives.
func (e *Env) AwaitVolume(t *testing.T, claim *corev1.PersistentVolumeClaim, timeout time.Duration) {
	t.Helper()
	e.Await(t, "a volume of claim "+claim.Name, timeout, func(ctx context.Context) error {
		_, err := e.Client.CoreV1().PersistentVolumes().Get(ctx, "pvc-"+string(claim.UID), metav1.GetOptions{})
		return err
	}, claim)
}

// DeleteClaim deletes a claim and waits until it does not exist any more.
func (e *Env) DeleteClaim(t *testing.T, name string) {
	t.Helper()
	claims := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace)
	if err := claims.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.Await(t, "claim "+name+" to be gone", Timeout, func(ctx context.Context) error {
		_, err := claims.Get(ctx, name, metav1.GetOptions{})
		return wantGone(err)
	})
}

// AwaitVolumeGone waits until a PersistentVolume does not exist any more.
func (e *Env) AwaitVolumeGone(t *testing.T, volume *corev1.PersistentVolume) {
	t.Helper()
	e.Await(t, "volume "+volume.Name+" to be gone", VolumeTimeout, func(ctx context.Context) error {
		_, err := e.Client.CoreV1().PersistentVolumes().Get(ctx, volume.Name, metav1.GetOptions{})
		return wantGone(err)
	}, volume)
}

// GetVolume reads the current state of a PersistentVolume.
func (e *Env) GetVolume(t *testing.T, name string) *corev1.PersistentVolume {
	t.Helper()
	volume, err := e.Client.CoreV1().PersistentVolumes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return volume
}

// Claims returns the claims of the test.
func (e *Env) Claims(ctx context.Context) ([]corev1.PersistentVolumeClaim, error) {
	list, err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// Volumes returns the PersistentVolumes that were created for the test's claims or have an
// image in its pool.
func (e *Env) Volumes(ctx context.Context) ([]corev1.PersistentVolume, error) {
	list, err := e.Client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(volume corev1.PersistentVolume) bool {
		ref, source := volume.Spec.ClaimRef, volume.Spec.RBD
		return (ref == nil || ref.Namespace != e.Namespace) && (source == nil || source.RBDPool != e.Pool)
	}), nil
}

// wantGone converts the result of a Get: NotFound is success.
func wantGone(err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("it still exists")
}
