package framework

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// ClassOption modifies a StorageClass before it is created.
type ClassOption func(*storagev1.StorageClass)

// Parameter sets a parameter.
func Parameter(key, value string) ClassOption {
	return func(class *storagev1.StorageClass) { class.Parameters[key] = value }
}

// NoParameter removes a parameter.
func NoParameter(key string) ClassOption {
	return func(class *storagev1.StorageClass) { delete(class.Parameters, key) }
}

// Expandable sets allowVolumeExpansion.
func Expandable(class *storagev1.StorageClass) { class.AllowVolumeExpansion = ptr.To(true) }

// Class creates a StorageClass for the test's pool and user, and returns its name. It is
// deleted at the end of the test.
func (e *Env) Class(t *testing.T, name string, options ...ClassOption) string {
	t.Helper()
	class := &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: e.Namespace + "-" + name},
		Provisioner: e.Provisioner,
		Parameters: map[string]string{
			"monitors":             strings.Join(e.Monitors, ","),
			"pool":                 e.Pool,
			"adminId":              e.User,
			"adminSecretName":      AdminSecret,
			"adminSecretNamespace": e.Namespace,
			"userId":               e.User,
			"userSecretName":       UserSecret,
		},
	}
	for _, option := range options {
		option(class)
	}
	return e.CreateClass(t, class)
}

// CreateClass creates the given class and returns its name. It is deleted at the end of the
// test.
func (e *Env) CreateClass(t *testing.T, class *storagev1.StorageClass) string {
	t.Helper()
	if _, err := e.Client.StorageV1().StorageClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e.Cleanup(func(t *testing.T) {
		ctx, cancel := cleanupContext()
		defer cancel()
		err := e.Client.StorageV1().StorageClasses().Delete(ctx, class.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return class.Name
}

// DeleteClass deletes a class.
func (e *Env) DeleteClass(t *testing.T, name string) {
	t.Helper()
	if err := e.Client.StorageV1().StorageClasses().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// PutSecret creates or replaces a Secret with a cephx key in the test's namespace.
func (e *Env) PutSecret(t *testing.T, name, key string) {
	t.Helper()
	e.addKey(key)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: e.Namespace},
		Type:       "kubernetes.io/rbd",
		StringData: map[string]string{"key": key},
	}
	secrets := e.Client.CoreV1().Secrets(e.Namespace)
	_, err := secrets.Create(t.Context(), secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = secrets.Update(t.Context(), secret, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}
