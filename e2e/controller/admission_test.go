//go:build e2e

package controller

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// refusal is the message of the webhook.
const refusal = "no volumes of this class today"

// refuseVolumes registers a webhook that rejects every new PersistentVolume of a class. allow
// removes it. It is not a ValidatingAdmissionPolicy, which old versions of Kubernetes lack.
func refuseVolumes(t *testing.T, e *framework.Env, class string) (allow func()) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := reviewVolume(w, r, class); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	webhooks := e.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	webhook := &registrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: class},
		Webhooks: []registrationv1.ValidatingWebhook{{
			Name: class + ".example.com",
			ClientConfig: registrationv1.WebhookClientConfig{
				URL:      &server.URL,
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			Rules: []registrationv1.RuleWithOperations{{
				Operations: []registrationv1.OperationType{registrationv1.Create},
				Rule: registrationv1.Rule{
					APIGroups: []string{corev1.GroupName}, APIVersions: []string{"v1"}, Resources: []string{"persistentvolumes"},
				},
			}},
			FailurePolicy:           ptr.To(registrationv1.Ignore), // must not affect the volumes of other tests
			SideEffects:             ptr.To(registrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{admissionv1.SchemeGroupVersion.Version},
		}},
	}
	if _, err := webhooks.Create(t.Context(), webhook, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	remove := func() {
		ctx := context.Background() // also after the end of the test
		if err := webhooks.Delete(ctx, class, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
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

// reviewVolume answers a request of the API server: a volume of the class is rejected.
func reviewVolume(w http.ResponseWriter, r *http.Request, class string) error {
	var review admissionv1.AdmissionReview
	var volume corev1.PersistentVolume
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		return fmt.Errorf("read an admission review: %w", err)
	}
	if err := json.Unmarshal(review.Request.Object.Raw, &volume); err != nil {
		return fmt.Errorf("read the volume of an admission review: %w", err)
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: volume.Spec.StorageClassName != class}
	if !review.Response.Allowed {
		review.Response.Result = &metav1.Status{
			Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: refusal,
		}
	}
	return json.NewEncoder(w).Encode(review)
}

// awaitRefusal waits until the API server calls the webhook, or does not call it any more.
func awaitRefusal(t *testing.T, e *framework.Env, class string, want bool) {
	t.Helper()
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: class}, Spec: corev1.PersistentVolumeSpec{
		StorageClassName: class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nonexistent"}},
	}}
	e.Await(t, fmt.Sprintf("the webhook to apply: %t", want), framework.Timeout, func(ctx context.Context) error {
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
