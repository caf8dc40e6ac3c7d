package deploy

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

const kustomizationFile = "kustomization.yaml"

// kustomization has the fields that this project uses.
type kustomization struct {
	metav1.TypeMeta `json:",inline"`
	Namespace       string   `json:"namespace,omitempty"`
	Resources       []string `json:"resources,omitempty"`
	Patches         []struct {
		Path string `json:"path"`
	} `json:"patches,omitempty"`
}

// serviceMonitor has the fields that this project uses.
type serviceMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port string `json:"port"`
			Path string `json:"path"`
		} `json:"endpoints"`
	} `json:"spec"`
}

func (*serviceMonitor) DeepCopyObject() runtime.Object { return nil }

// object has the methods of all kinds.
type object interface {
	runtime.Object
	metav1.Object
}

func newObject(kind string) (object, error) {
	switch kind {
	case "apps/v1 Deployment":
		return &appsv1.Deployment{}, nil
	case "v1 Secret":
		return &corev1.Secret{}, nil
	case "v1 Service":
		return &corev1.Service{}, nil
	case "v1 ServiceAccount":
		return &corev1.ServiceAccount{}, nil
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return &serviceMonitor{}, nil
	case "policy/v1 PodDisruptionBudget":
		return &policyv1.PodDisruptionBudget{}, nil
	case "rbac.authorization.k8s.io/v1 ClusterRole":
		return &rbacv1.ClusterRole{}, nil
	case "rbac.authorization.k8s.io/v1 ClusterRoleBinding":
		return &rbacv1.ClusterRoleBinding{}, nil
	case "rbac.authorization.k8s.io/v1 Role":
		return &rbacv1.Role{}, nil
	case "rbac.authorization.k8s.io/v1 RoleBinding":
		return &rbacv1.RoleBinding{}, nil
	case "storage.k8s.io/v1 StorageClass":
		return &storagev1.StorageClass{}, nil
	}
	return nil, fmt.Errorf("unknown kind %q", kind)
}

// manifest is one object and its file.
type manifest struct {
	file   string
	object object
}

func (m manifest) String() string {
	return fmt.Sprintf("%s: %s %s", m.file, m.object.GetObjectKind().GroupVersionKind().Kind, m.object.GetName())
}

func (m manifest) patch() bool { return strings.HasSuffix(m.file, "-patch.yaml") }

// yamlFiles lists the YAML files under a folder.
func yamlFiles(t *testing.T, root string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".yaml" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// load decodes all manifests under a folder. Unknown and duplicate keys are errors.
func load(t *testing.T, root string) []manifest {
	t.Helper()
	var manifests []manifest
	for _, file := range yamlFiles(t, root) {
		if filepath.Base(file) == kustomizationFile {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range bytes.Split(data, []byte("\n---\n")) {
			object, err := decode(document)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			manifests = append(manifests, manifest{file, object})
		}
	}
	return manifests
}

func decode(document []byte) (object, error) {
	// A directive for kustomize, which is not a field of the object.
	document = bytes.TrimPrefix(document, []byte("$patch: delete\n"))
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return nil, err
	}
	object, err := newObject(kind.APIVersion + " " + kind.Kind)
	if err != nil {
		return nil, err
	}
	return object, yaml.UnmarshalStrict(document, object)
}

// find returns the object with the type and the name. It fails the test if there is none.
func find[T object](t *testing.T, manifests []manifest, name string) T {
	t.Helper()
	for _, m := range manifests {
		if object, ok := m.object.(T); ok && m.object.GetName() == name && !m.patch() {
			return object
		}
	}
	var none T
	t.Fatalf("no %T %q", none, name)
	return none
}
