package framework

import (
	_ "embed"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/yaml"
)

// The predecessors' example classes, unchanged.
var (
	// From the documentation of Kubernetes, "Storage Classes", "Ceph RBD".
	//go:embed testdata/class-kubernetes.yaml
	kubernetesClass string
	// From kubernetes-incubator/external-storage, ceph/rbd/examples/class.yaml.
	//go:embed testdata/class-retired.yaml
	retiredClass string
)

// KubernetesClass creates the class of Kubernetes' documentation, with this provisioner, and
// returns its name. It uses the pool "kube".
func (e *Env) KubernetesClass(t *testing.T) string {
	t.Helper()
	const intree = "\nprovisioner: kubernetes.io/rbd #"
	if !strings.Contains(kubernetesClass, intree) {
		t.Fatalf("no provisioner line:\n%s", kubernetesClass)
	}
	return e.predecessorClass(t, strings.Replace(kubernetesClass, intree, "\nprovisioner: "+e.Provisioner+" #", 1))
}

// RetiredClass creates the retired rbd-provisioner's example class and returns its name. It
// uses the pool "kube".
func (e *Env) RetiredClass(t *testing.T, options ...ClassOption) string {
	t.Helper()
	return e.predecessorClass(t, retiredClass, options...)
}

// predecessorClass adapts an example: it sets the cluster's addresses and creates Secrets with
// the keys of the users that the class names. One example names Ceph's administrator, who is
// replaced by the user with the documented capabilities.
func (e *Env) predecessorClass(t *testing.T, example string, options ...ClassOption) string {
	t.Helper()
	var class storagev1.StorageClass
	if err := yaml.UnmarshalStrict([]byte(example), &class); err != nil {
		t.Fatal(err)
	}
	class.Name = e.Namespace + "-" + class.Name + "-" + rand.String(5)
	parameters := class.Parameters
	parameters["monitors"] = strings.Join(e.Monitors, ",")
	if parameters["adminId"] == "admin" {
		parameters["adminId"] = parameters["userId"]
	}
	for _, who := range []string{"admin", "user"} {
		name := who + "-" + class.Name
		parameters[who+"SecretName"] = name
		key := e.Ceph.Run(t, "ceph", "auth", "get-key", "client."+parameters[who+"Id"])
		e.secretIn(t, parameters[who+"SecretNamespace"], name, key)
	}
	for _, option := range options {
		option(&class)
	}
	return e.CreateClass(t, &class)
}

// secretIn creates a Secret outside the test's namespace.
func (e *Env) secretIn(t *testing.T, namespace, name, key string) {
	t.Helper()
	e.addKey(key)
	secrets := e.Client.CoreV1().Secrets(namespace)
	_, err := secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Type:       "kubernetes.io/rbd",
		StringData: map[string]string{"key": key},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e.Cleanup(func(t *testing.T) {
		ctx, cancel := cleanupContext()
		defer cancel()
		if err := secrets.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
}
