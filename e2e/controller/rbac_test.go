//go:build e2e

package controller

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestRights checks the permissions of the service account of deploy/base, like `kubectl auth
// can-i`.
func TestRights(t *testing.T) {
	t.Parallel()
	client, err := kubernetes.NewForConfig(framework.ServiceAccountConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, right := range []struct {
		may  bool
		verb string
		// what is GROUP/RESOURCE[/SUBRESOURCE][:NAME], with core for the core group.
		what, namespace string
	}{
		{true, "get", "core/persistentvolumes", ""},
		{true, "create", "core/persistentvolumes", ""},
		{true, "patch", "core/persistentvolumes", ""},
		{true, "delete", "core/persistentvolumes", ""},
		{false, "update", "core/persistentvolumes", ""},
		{true, "list", "core/persistentvolumeclaims", ""},
		{true, "patch", "core/persistentvolumeclaims/status", "default"},
		{false, "patch", "core/persistentvolumeclaims", "default"},
		{false, "create", "core/persistentvolumeclaims", "default"},
		{false, "delete", "core/persistentvolumeclaims", "default"},
		{true, "watch", "storage.k8s.io/storageclasses", ""},
		{false, "create", "storage.k8s.io/storageclasses", ""},
		{false, "delete", "storage.k8s.io/storageclasses", ""},
		{true, "get", "core/secrets", "default"},
		{false, "list", "core/secrets", "default"},
		{false, "list", "core/secrets", ""},
		{false, "watch", "core/secrets", ""},
		{false, "create", "core/secrets", "default"},
		{false, "update", "core/secrets", "default"},
		{false, "delete", "core/secrets", "default"},
		{true, "create", "core/events", "default"},
		{false, "delete", "core/events", "default"},
		{true, "update", "coordination.k8s.io/leases:ceph.com-rbd", "kube-system"},
		{false, "update", "coordination.k8s.io/leases:kube-scheduler", "kube-system"},
		{false, "update", "coordination.k8s.io/leases:ceph.com-rbd", "default"},
		{true, "get", "core/namespaces:kube-system", ""},
		{false, "get", "core/namespaces:default", ""},
		{false, "list", "core/namespaces", ""},
		{true, "list", "core/nodes", ""},
		{false, "patch", "core/nodes", ""},
		{false, "update", "core/nodes/status", ""},
		{false, "get", "core/pods", "default"},
		{false, "create", "core/pods", "kube-system"},
		{false, "create", "core/pods/exec", "default"},
		{false, "create", "core/serviceaccounts/token", "kube-system"},
		{false, "impersonate", "core/users", ""},
		{false, "create", "rbac.authorization.k8s.io/clusterrolebindings", ""},
		{false, "get", "core/configmaps", "kube-system"},
		{false, "*", "*/*", ""},
	} {
		attributes := attributesOf(right.what)
		attributes.Verb, attributes.Namespace = right.verb, right.namespace
		review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if review.Status.Allowed != right.may {
			t.Errorf("%s %s in namespace %q: allowed: %t, want %t (%s)",
				right.verb, right.what, right.namespace, review.Status.Allowed, right.may, review.Status.Reason)
		}
	}
}

// TestRightsInCeph compares the capabilities of the tests' users with those that deploy/example
// documents.
func TestRightsInCeph(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../../deploy/example/secrets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documented := regexp.MustCompile(`mon '([^']+)' osd '([^']+)'`).FindAllStringSubmatch(string(example), -1)
	if len(documented) != 2 {
		t.Fatalf("deploy/example/secrets.yaml has the capabilities of %d users, want 2", len(documented))
	}
	e := newEnv(t)
	for user, pool := range map[string]string{e.User: e.Pool, "kube": "kube"} {
		var entities []struct{ Caps map[string]string }
		e.Ceph.JSON(t, &entities, "ceph", "auth", "get", "client."+user)
		for _, rights := range documented {
			want := map[string]string{"mon": rights[1], "osd": strings.ReplaceAll(rights[2], "pool=kube", "pool="+pool)}
			if diff := cmp.Diff(want, entities[0].Caps); diff != "" {
				t.Errorf("capabilities of client.%s (-want +got):\n%s", user, diff)
			}
		}
	}
}

func attributesOf(what string) *authorizationv1.ResourceAttributes {
	what, name, _ := strings.Cut(what, ":")
	group, resource, _ := strings.Cut(what, "/")
	resource, subresource, _ := strings.Cut(resource, "/")
	if group == "core" {
		group = ""
	}
	return &authorizationv1.ResourceAttributes{Group: group, Resource: resource, Subresource: subresource, Name: name}
}
