//go:build e2e

package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// refusal is the message of the policy.
const refusal = "no volumes of this class today"

// refuseVolumes creates a policy that rejects every new PersistentVolume of a class. allow
// removes it.
func refuseVolumes(t *testing.T, e *framework.Env, class string) (allow func()) {
	t.Helper()
	client := e.Client.AdmissionregistrationV1()
	meta := metav1.ObjectMeta{Name: class}
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: ptr.To(admissionv1.Ignore), // must not affect the volumes of other tests
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
			RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{
					APIGroups: []string{corev1.GroupName}, APIVersions: []string{"v1"}, Resources: []string{"persistentvolumes"},
				},
			},
		}}},
		Validations: []admissionv1.Validation{{Expression: "object.spec.storageClassName != '" + class + "'", Message: refusal}},
	}}
	if _, err := client.ValidatingAdmissionPolicies().Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: class, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	if _, err := client.ValidatingAdmissionPolicyBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	remove := func() {
		ctx := context.Background() // also after the end of the test
		err := client.ValidatingAdmissionPolicyBindings().Delete(ctx, class, metav1.DeleteOptions{})
		if err == nil {
			err = client.ValidatingAdmissionPolicies().Delete(ctx, class, metav1.DeleteOptions{})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
	t.Cleanup(remove)
	awaitRefusal(t, e, class, true)
	return func() {
		remove()
		awaitRefusal(t, e, class, false)
	}
}

// awaitRefusal waits until the API server applies the policy, or does not apply it any more.
func awaitRefusal(t *testing.T, e *framework.Env, class string, want bool) {
	t.Helper()
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: class}, Spec: corev1.PersistentVolumeSpec{
		StorageClassName: class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nonexistent"}},
	}}
	e.Await(t, fmt.Sprintf("the policy to apply: %t", want), framework.Timeout, func(ctx context.Context) error {
		_, err := e.Client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		refused := err != nil && strings.Contains(err.Error(), refusal)
		switch {
		case refused == want:
			return nil
		case err != nil:
			return err
		}
		return errors.New("volumes are accepted")
	})
}
