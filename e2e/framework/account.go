package framework

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
)

// The service account of deploy/base.
const (
	account          = "rbd-provisioner"
	AccountNamespace = metav1.NamespaceSystem
)

// LeaseRolePrefix is the prefix of the roles for the tests' leases.
const LeaseRolePrefix = "leases-"

// Base renders deploy/base and returns one manifest for each object.
func Base(ctx context.Context) ([]string, error) {
	rendered, err := TryKubectl(ctx, "", "kustomize", filepath.Join("..", "..", "deploy", "base"))
	return strings.Split(rendered, "\n---\n"), err
}

// install applies all of deploy/base except the Deployment, once.
var install = sync.OnceValue(func() error {
	ctx := context.Background()
	rendered, err := Base(ctx)
	if err != nil {
		return err
	}
	var manifests []string
	for _, manifest := range rendered {
		if !strings.Contains("\n"+manifest, "\nkind: Deployment\n") {
			manifests = append(manifests, manifest)
		}
	}
	if found := len(rendered) - len(manifests); found != 1 {
		return fmt.Errorf("deploy/base has %d Deployments, want one", found)
	}
	_, err = TryKubectl(ctx, strings.Join(manifests, "\n---\n"), "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
})

// ServiceAccountConfig returns a configuration with a token of the provisioner's service
// account, as in a pod.
func ServiceAccountConfig(t *testing.T) *rest.Config {
	t.Helper()
	if err := install(); err != nil {
		t.Fatal(err)
	}
	config := Config(t)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](7200)}}
	token, err := client.CoreV1().ServiceAccounts(AccountNamespace).CreateToken(t.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := rest.LoadTLSFiles(config); err != nil {
		t.Fatal(err)
	}
	anonymous := rest.AnonymousClientConfig(config)
	anonymous.BearerToken = token.Status.Token
	return anonymous
}

// serviceAccountKubeconfig writes that configuration to a file.
func serviceAccountKubeconfig(t *testing.T) string {
	t.Helper()
	return kubeconfigFile(t, ServiceAccountConfig(t))
}

// ProxiedKubeconfig writes such a file for access to the API server through a proxy.
func ProxiedKubeconfig(t *testing.T, api *Proxy) string {
	t.Helper()
	config := ServiceAccountConfig(t)
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	config.ServerName, config.Host = server.Hostname(), "https://"+api.Address()
	return kubeconfigFile(t, config)
}

func kubeconfigFile(t *testing.T, config *rest.Config) string {
	t.Helper()
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["c"] = &clientcmdapi.Cluster{
		Server: config.Host, TLSServerName: config.ServerName,
		CertificateAuthorityData: config.CAData, InsecureSkipTLSVerify: config.Insecure,
	}
	kubeconfig.AuthInfos["a"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	kubeconfig.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "a"}
	kubeconfig.CurrentContext = "x"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*kubeconfig, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// LeaseName returns the name of the lease of the test's provisioner.
func (e *Env) LeaseName() string { return strings.ReplaceAll(e.Provisioner, "/", "-") }

// LeaseNamespace returns the namespace of that lease.
func (e *Env) LeaseNamespace() string {
	if e.Provisioner == provisioner.DefaultName {
		return AccountNamespace
	}
	return e.Namespace
}

// allowLease creates a role for the lease of the test's provisioner in the test's namespace.
// The role in deploy/base allows only the lease of the default name.
func (e *Env) allowLease(t *testing.T) (namespace string) {
	t.Helper()
	if e.LeaseNamespace() == AccountNamespace {
		return AccountNamespace
	}
	meta := metav1.ObjectMeta{Name: LeaseRolePrefix + e.LeaseName(), Namespace: e.Namespace}
	roles := e.Client.RbacV1().Roles(e.Namespace)
	if _, err := roles.Get(t.Context(), meta.Name, metav1.GetOptions{}); err == nil {
		return e.Namespace
	}
	_, err := roles.Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		{
			APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"},
			ResourceNames: []string{e.LeaseName()}, Verbs: []string{"get", "update"},
		},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Client.RbacV1().RoleBindings(e.Namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: AccountNamespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return e.Namespace
}
