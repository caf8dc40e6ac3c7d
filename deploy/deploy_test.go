package deploy

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestEveryManifestDecodesStrictly(t *testing.T) {
	t.Parallel()
	if manifests := load(t, "."); len(manifests) < 10 {
		t.Errorf("found only %d manifests", len(manifests))
	}
}

func TestKustomizationsListAllFilesOfTheirFolder(t *testing.T) {
	t.Parallel()
	for _, file := range yamlFiles(t, ".") {
		folder := filepath.Dir(file)
		data, err := os.ReadFile(filepath.Join(folder, kustomizationFile))
		if err != nil {
			t.Errorf("%s is not part of a kustomization: %v", file, err)
			continue
		}
		var k kustomization
		if err := yaml.UnmarshalStrict(data, &k); err != nil {
			t.Errorf("%s/%s: %v", folder, kustomizationFile, err)
		}
		listed := append([]string{kustomizationFile}, k.Resources...)
		for _, patch := range k.Patches {
			listed = append(listed, patch.Path)
		}
		if !slices.Contains(listed, filepath.Base(file)) {
			t.Errorf("%s/%s does not list %s", folder, kustomizationFile, filepath.Base(file))
		}
		for _, name := range listed {
			if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
				t.Errorf("%s/%s lists %s: %v", folder, kustomizationFile, name, err)
			}
		}
	}
}

func TestObjectsCarryTheCommonLabels(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"app.kubernetes.io/name":      "rbd-provisioner",
		"app.kubernetes.io/component": "provisioner",
		"app.kubernetes.io/part-of":   "rbd-provisioner",
	}
	for _, root := range []string{"base", "components"} {
		for _, m := range load(t, root) {
			if m.patch() {
				continue
			}
			if diff := cmp.Diff(want, m.object.GetLabels()); diff != "" {
				t.Errorf("%s: labels (-want +got):\n%s", m, diff)
			}
		}
	}
	template := find[*appsv1.Deployment](t, load(t, "base"), "rbd-provisioner").Spec.Template
	if diff := cmp.Diff(want, template.Labels); diff != "" {
		t.Errorf("labels of the pod (-want +got):\n%s", diff)
	}
}

func TestSelectorsHaveOnlyTheName(t *testing.T) {
	t.Parallel()
	want := &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/name": "rbd-provisioner"}}
	found := 0
	for _, m := range load(t, ".") {
		for what, got := range selectors(m.object) {
			found++
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", m, what, diff)
			}
		}
	}
	if found != 5 {
		t.Errorf("found %d selectors, want those of deployment, anti-affinity, budget, service and monitor", found)
	}
}

func selectors(object object) map[string]*metav1.LabelSelector {
	all := map[string]*metav1.LabelSelector{}
	switch o := object.(type) {
	case *appsv1.Deployment:
		if o.Spec.Selector != nil {
			all["selector"] = o.Spec.Selector
		}
		if affinity := o.Spec.Template.Spec.Affinity; affinity != nil {
			for i, term := range affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
				all[fmt.Sprintf("anti-affinity %d", i)] = term.PodAffinityTerm.LabelSelector
			}
		}
	case *policyv1.PodDisruptionBudget:
		all["selector"] = o.Spec.Selector
	case *corev1.Service:
		all["selector"] = &metav1.LabelSelector{MatchLabels: o.Spec.Selector}
	case *serviceMonitor:
		all["selector"] = &o.Spec.Selector
	}
	return all
}

func TestThePodIsRestricted(t *testing.T) {
	t.Parallel()
	pod := find[*appsv1.Deployment](t, load(t, "base"), "rbd-provisioner").Spec.Template.Spec
	yes, no, nobody := true, false, int64(65534)
	runtimeDefault := &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	wantPod := &corev1.PodSecurityContext{
		RunAsNonRoot: &yes, RunAsUser: &nobody, RunAsGroup: &nobody, SeccompProfile: runtimeDefault,
	}
	if diff := cmp.Diff(wantPod, pod.SecurityContext); diff != "" {
		t.Errorf("security context of the pod (-want +got):\n%s", diff)
	}
	wantContainer := &corev1.SecurityContext{
		RunAsNonRoot: &yes, RunAsUser: &nobody, RunAsGroup: &nobody, SeccompProfile: runtimeDefault,
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	for _, container := range append(pod.Containers, pod.InitContainers...) {
		if diff := cmp.Diff(wantContainer, container.SecurityContext); diff != "" {
			t.Errorf("security context of container %s (-want +got):\n%s", container.Name, diff)
		}
	}
	if pod.HostNetwork || pod.HostPID || pod.HostIPC || len(pod.Volumes) > 0 {
		t.Error("the pod uses a host namespace or a volume")
	}
}

func TestProbesAndMonitorUseThePortOfTheServer(t *testing.T) {
	t.Parallel()
	manifests := load(t, ".")
	container := find[*appsv1.Deployment](t, manifests, "rbd-provisioner").Spec.Template.Spec.Containers[0]
	port := container.Ports[0]
	if want := fmt.Sprintf("--http-endpoint=:%d", port.ContainerPort); !slices.Contains(container.Args, want) {
		t.Errorf("arguments %q have no %s", container.Args, want)
	}
	for path, probe := range map[string]*corev1.Probe{
		"/livez": container.LivenessProbe, "/readyz": container.ReadinessProbe,
	} {
		if probe.HTTPGet.Path != path || probe.HTTPGet.Port.String() != port.Name {
			t.Errorf("probe of %s at port %s, want %s at %s", probe.HTTPGet.Path, probe.HTTPGet.Port.String(), path, port.Name)
		}
	}
	service := find[*corev1.Service](t, manifests, "rbd-provisioner").Spec.Ports[0]
	if service.TargetPort.String() != port.Name {
		t.Errorf("target port of the service %s, want %s", service.TargetPort.String(), port.Name)
	}
	if got := find[*serviceMonitor](t, manifests, "rbd-provisioner").Spec.Endpoints[0].Port; got != service.Name {
		t.Errorf("port of the monitor %s, want %s", got, service.Name)
	}
}

func TestTheInstallationHasNoSecrets(t *testing.T) {
	t.Parallel()
	for _, root := range []string{"base", "components"} {
		for _, m := range load(t, root) {
			if _, isSecret := m.object.(*corev1.Secret); isSecret {
				t.Errorf("%s", m)
			}
		}
	}
}

func TestBindingsBindRolesOfTheirFolderToTheServiceAccount(t *testing.T) {
	t.Parallel()
	account := find[*corev1.ServiceAccount](t, load(t, "base"), "rbd-provisioner")
	want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account.Name, Namespace: account.Namespace}}
	for _, root := range []string{"base", "components"} {
		manifests := load(t, root)
		for _, m := range manifests {
			var subjects []rbacv1.Subject
			switch o := m.object.(type) {
			case *rbacv1.ClusterRoleBinding:
				if m.patch() {
					continue
				}
				find[*rbacv1.ClusterRole](t, manifests, o.RoleRef.Name)
				subjects = o.Subjects
			case *rbacv1.RoleBinding:
				if role := find[*rbacv1.Role](t, manifests, o.RoleRef.Name); role.Namespace != o.Namespace {
					t.Errorf("%s: the role is in namespace %s", m, role.Namespace)
				}
				subjects = o.Subjects
			default:
				continue
			}
			if diff := cmp.Diff(want, subjects); diff != "" {
				t.Errorf("%s: subjects (-want +got):\n%s", m, diff)
			}
		}
	}
}

func TestRulesAreRestricted(t *testing.T) {
	t.Parallel()
	for _, m := range load(t, ".") {
		var rules []rbacv1.PolicyRule
		switch o := m.object.(type) {
		case *rbacv1.ClusterRole:
			rules = o.Rules
		case *rbacv1.Role:
			rules = o.Rules
		}
		for _, rule := range rules {
			all := slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs)
			if slices.Contains(all, "*") {
				t.Errorf("%s: %v has a wildcard", m, rule)
			}
			if slices.Contains(rule.Resources, "secrets") && !slices.Equal(rule.Verbs, []string{"get"}) {
				t.Errorf("%s: %v allows more than get of Secrets", m, rule)
			}
		}
	}
}

func TestTheExampleClassNamesTheExampleSecrets(t *testing.T) {
	t.Parallel()
	manifests := load(t, "example")
	class := find[*storagev1.StorageClass](t, manifests, "ceph-rbd")
	for _, role := range []string{"admin", "user"} {
		secret := find[*corev1.Secret](t, manifests, class.Parameters[role+"SecretName"])
		if want := class.Parameters[role+"SecretNamespace"]; secret.Namespace != want {
			t.Errorf("Secret %s is in namespace %s, want %s as in the class", secret.Name, secret.Namespace, want)
		}
		if secret.Type != "kubernetes.io/rbd" {
			t.Errorf("Secret %s has type %s", secret.Name, secret.Type)
		}
		if keys := slices.Collect(maps.Keys(secret.StringData)); !slices.Equal(keys, []string{"key"}) {
			t.Errorf("Secret %s has entries %q", secret.Name, keys)
		}
	}
}

// TestKubectlRendersAllManifests uses the kustomize of kubectl.
func TestKubectlRendersAllManifests(t *testing.T) {
	t.Parallel()
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("needs kubectl")
	}
	if got := render(t, kubectl, "."); !strings.Contains(got, "kind: Deployment") {
		t.Errorf("the installation has no Deployment:\n%s", got)
	}
	if got := render(t, kubectl, "example"); !strings.Contains(got, "kind: StorageClass") {
		t.Errorf("the example has no StorageClass:\n%s", got)
	}
	got := render(t, kubectl, overlay(t))
	for _, want := range []string{"replicas: 2", "kind: PodDisruptionBudget", "kind: ServiceMonitor"} {
		if !strings.Contains(got, want) {
			t.Errorf("with all components, %q is missing", want)
		}
	}
	// One ClusterRole, and the reference to it in its binding.
	if strings.Count(got, "kind: ClusterRole\n") != 2 {
		t.Errorf("with all components, all Secrets can still be read:\n%s", got)
	}
}

func render(t *testing.T, kubectl, folder string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), kubectl, "kustomize", folder)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kubectl kustomize %s: %v: %s", folder, err, stderr.String())
	}
	return stdout.String()
}

// overlay writes a kustomization with all components.
func overlay(t *testing.T) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	components, err := filepath.Glob("components/*")
	if err != nil || len(components) == 0 {
		t.Fatalf("found no components: %v", err)
	}
	folder := t.TempDir()
	back, err := filepath.Rel(folder, here)
	if err != nil {
		t.Fatal(err)
	}
	text := "resources:\n- " + back + "\ncomponents:\n"
	for _, component := range components {
		text += "- " + filepath.Join(back, component) + "\n"
	}
	if err := os.WriteFile(filepath.Join(folder, kustomizationFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}
