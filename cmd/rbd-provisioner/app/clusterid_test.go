package app

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestClusterID(t *testing.T) {
	t.Parallel()
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "cluster-1"}}
	namespaces := corev1.Resource("namespaces")
	for name, test := range map[string]struct {
		objects []apiruntime.Object
		fail    error
		want    string
		err     string
	}{
		"the UID of kube-system": {objects: []apiruntime.Object{system}, want: "cluster-1"},
		"a missing namespace": {
			err: `read the UID of namespace kube-system (or set --cluster-id): namespaces "kube-system" not found`},
		"a forbidden namespace": {
			fail: apierrors.NewForbidden(namespaces, "kube-system", errors.New("no rule")),
			err:  `read the UID of namespace kube-system (or set --cluster-id): namespaces "kube-system" is forbidden: no rule`},
		"an unknown identity": {
			fail: apierrors.NewUnauthorized("no token"), err: "read the UID of namespace kube-system (or set --cluster-id): no token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewSimpleClientset(test.objects...)
			failNamespaces(client, func() error { return test.fail })
			id, err := clusterID(t.Context(), client, 0)
			if id != test.want || (err == nil) != (test.err == "") || (err != nil && err.Error() != test.err) {
				t.Errorf("clusterID = %q, %v, want %q, %s", id, err, test.want, test.err)
			}
		})
	}
}

func TestClusterIDWaitsForTheAPIServer(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"starting": apierrors.NewServiceUnavailable("starting"),
		"started, before it has read the RBAC rules": apierrors.NewForbidden(corev1.Resource("namespaces"), "kube-system", errors.New("no rule")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewSimpleClientset()
			ctx, cancel := context.WithCancel(t.Context())
			failNamespaces(client, func() error {
				cancel()
				return failure
			})
			if id, err := clusterID(ctx, client, time.Hour); id != "" || !errors.Is(err, context.Canceled) {
				t.Errorf("clusterID = %q, %v, want %v", id, err, context.Canceled)
			}
		})
	}
}

func failNamespaces(client *fake.Clientset, fail func() error) {
	client.PrependReactor("get", "namespaces", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		if err := fail(); err != nil {
			return true, &corev1.Namespace{}, err
		}
		return false, nil, nil
	})
}
