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

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// secretKey is the entry of a Secret that holds the cephx key.
const secretKey = "key"

// adminKey reads the key of the admin user, which the provisioner itself uses.
func (c Clusters) adminKey(ctx context.Context, ref types.NamespacedName) (rbdutil.Key, error) {
	secret, err := c.Secrets.Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return rbdutil.Key{}, preflightf("admin secret %s does not exist: create it with the output of `ceph auth get-key` under %q", ref, secretKey)
	case apierrors.IsForbidden(err):
		return rbdutil.Key{}, preflightf("admin secret %s cannot be read: allow the service account of this provisioner to get secrets in namespace %s", ref, ref.Namespace)
	case err != nil:
		return rbdutil.Key{}, preflightf("read admin secret %s: %w", ref, err)
	}
	key, err := keyIn(secret)
	if err != nil {
		return rbdutil.Key{}, preflightf("admin secret %s: %w", ref, err)
	}
	return key, nil
}

// keyIn returns the entry "key". Without it, it returns the only entry.
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

// warnOfUserSecret sends an event if the nodes will not be able to map the volume with
// the user secret. Without it, the mistake shows only when a pod is started.
func (p *Provisioner) warnOfUserSecret(ctx context.Context, claim *corev1.PersistentVolumeClaim, ref types.NamespacedName) {
	if ref.Name == "" {
		return
	}
	if ref.Namespace == "" {
		ref.Namespace = claim.Namespace
	}
	if problem := p.checkUserSecret(ctx, ref); problem != "" {
		p.Events.Event(claim, corev1.EventTypeWarning, reasonUserSecret, problem)
	}
}

// checkUserSecret returns why nodes will not be able to map a volume with the secret, or
// an empty string. The volume is created nevertheless: the secret may be created or
// corrected until the volume is mounted.
func (p *Provisioner) checkUserSecret(ctx context.Context, ref types.NamespacedName) string {
	secret, err := p.Clusters.Secrets.Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("user secret %s does not exist: create it, nodes cannot map the volume without it", ref)
	case err != nil:
		// The provisioner does not use this secret, and need not be allowed to read it.
		return ""
	case len(secret.Data) > 1:
		return fmt.Sprintf("user secret %s has several entries (%s): the kubelet may use any of them as the key: remove all but %q",
			ref, entries(secret), secretKey)
	}
	for _, only := range secret.Data {
		if err := rbdutil.NewKey(string(only)).Check(); err != nil {
			return fmt.Sprintf("user secret %s: %v: nodes cannot map the volume with it", ref, err)
		}
		return ""
	}
	return fmt.Sprintf("user secret %s is empty: nodes cannot map the volume with it", ref)
}

func entries(secret *corev1.Secret) string {
	return storageclass.Truncate(strings.Join(slices.Sorted(maps.Keys(secret.Data)), ", "))
}
