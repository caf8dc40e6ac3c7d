package provisioner

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// secretKey is the entry of a Secret that holds the cephx key.
const secretKey = "key"

// adminKey reads the key that we ourselves use.
func (p *Provisioner) adminKey(ctx context.Context, ref types.NamespacedName) (rbdutil.Key, error) {
	secret, err := p.secrets.Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return rbdutil.Key{}, refusef("admin secret %s does not exist: create it with the output of `ceph auth get-key` under %q", ref, secretKey)
	case apierrors.IsForbidden(err):
		return rbdutil.Key{}, refusef("admin secret %s may not be read by this provisioner: allow its service account to get secrets in namespace %s", ref, ref.Namespace)
	case err != nil:
		return rbdutil.Key{}, refusef("read admin secret %s: %w", ref, err)
	}
	key, err := keyIn(secret)
	if err != nil {
		return rbdutil.Key{}, refusef("admin secret %s: %w", ref, err)
	}
	return key, nil
}

// keyIn returns the entry "key", else the only one.
func keyIn(secret *corev1.Secret) (rbdutil.Key, error) {
	data, ok := secret.Data[secretKey]
	if !ok {
		switch len(secret.Data) {
		case 0:
			return rbdutil.Key{}, fmt.Errorf("it is empty: put the output of `ceph auth get-key` under %q", secretKey)
		case 1:
			for _, only := range secret.Data {
				data = only
			}
		default:
			return rbdutil.Key{}, fmt.Errorf("none of its entries (%s) is called %q: put the output of `ceph auth get-key` there", entries(secret), secretKey)
		}
	}
	key := rbdutil.NewKey(string(data))
	if err := key.Check(); err != nil {
		return rbdutil.Key{}, fmt.Errorf("%w: put the output of `ceph auth get-key` there, with `printf` rather than `echo`", err)
	}
	return key, nil
}

// userSecretDoubt returns what a node will stumble over when it mounts with the
// user secret, or nothing. It is no reason to refuse the volume: the secret may be
// put right, or created, at any time until then.
func (p *Provisioner) userSecretDoubt(ctx context.Context, ref types.NamespacedName) string {
	secret, err := p.secrets.Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("user secret %s does not exist: until it does, no node can map the volume", ref)
	case err != nil:
		// We have no need of this secret, so that not seeing it is no finding.
		return ""
	case len(secret.Data) > 1:
		return fmt.Sprintf("user secret %s has several entries (%s): the kubelet takes any one of them for the key, so leave only %q",
			ref, entries(secret), secretKey)
	}
	for _, only := range secret.Data {
		if err := rbdutil.NewKey(string(only)).Check(); err != nil {
			return fmt.Sprintf("user secret %s: %v: no node can map the volume with it", ref, err)
		}
		return ""
	}
	return fmt.Sprintf("user secret %s is empty: no node can map the volume with it", ref)
}

func entries(secret *corev1.Secret) string {
	return cut(strings.Join(slices.Sorted(maps.Keys(secret.Data)), ", "))
}
