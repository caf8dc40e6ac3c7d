package framework

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// ImageInfo is the output of `rbd info`.
type ImageInfo struct {
	Format   int
	Size     uint64
	Features []string
	Order    int
	DataPool string `json:"data_pool"`
}

// ImageFor returns the image of a claim, by its UID.
func (e *Env) ImageFor(claim *corev1.PersistentVolumeClaim) rbdutil.ImageRef {
	return rbdutil.ImageRef{Pool: e.Pool, Name: "kubernetes-dynamic-pvc-" + string(claim.UID)}
}

// ImageOf returns the image of a volume.
func ImageOf(volume *corev1.PersistentVolume) rbdutil.ImageRef {
	return rbdutil.ImageRef{Pool: volume.Spec.RBD.RBDPool, Name: volume.Spec.RBD.RBDImage}
}

// TryImages lists the names of the images in the test's pool.
func (e *Env) TryImages(ctx context.Context) ([]string, error) {
	out, err := e.Ceph.Try(ctx, "rbd", "ls", e.Pool, "--format", "json")
	if err != nil {
		return nil, err
	}
	var names []string
	return names, json.Unmarshal(out, &names)
}

// TryTrash lists the names of the images in the trash of the test's pool.
func (e *Env) TryTrash(ctx context.Context) ([]string, error) {
	out, err := e.Ceph.Try(ctx, "rbd", "trash", "ls", "--all", e.Pool, "--format", "json")
	if err != nil {
		return nil, err
	}
	var entries []struct{ Name string }
	if err := json.Unmarshal(out, &entries); err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name)
	}
	return names, nil
}

// ImageExists reports whether the image is in its pool.
func (e *Env) ImageExists(t *testing.T, ref rbdutil.ImageRef) bool {
	t.Helper()
	return slices.Contains(e.Ceph.Images(t, ref.Pool), ref.Name)
}

// WantImage fails the test unless the image exists, or does not exist, as wanted.
func (e *Env) WantImage(t *testing.T, ref rbdutil.ImageRef, want bool) {
	t.Helper()
	if got := e.ImageExists(t, ref); got != want {
		t.Errorf("image %s exists: %t, want %t", ref, got, want)
	}
}

// ImageInfo reads the properties of an existing image.
func (e *Env) ImageInfo(t *testing.T, ref rbdutil.ImageRef) ImageInfo {
	t.Helper()
	var info ImageInfo
	e.Ceph.JSON(t, &info, "rbd", "info", ref.String())
	return info
}

// ImageMetadata reads the metadata of an existing image.
func (e *Env) ImageMetadata(t *testing.T, ref rbdutil.ImageRef) map[string]string {
	t.Helper()
	metadata := map[string]string{}
	e.Ceph.JSON(t, &metadata, "rbd", "image-meta", "list", ref.String())
	return metadata
}

// Record reads the record in an image's metadata.
func (e *Env) Record(t *testing.T, ref rbdutil.ImageRef) rbdutil.Record {
	t.Helper()
	record, err := rbdutil.DecodeRecord(e.ImageMetadata(t, ref)[rbdutil.MetaRecord])
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// SetRecord writes the record of an image. The value may be invalid.
func (e *Env) SetRecord(t *testing.T, ref rbdutil.ImageRef, value string) {
	t.Helper()
	e.Ceph.Run(t, "rbd", "image-meta", "set", ref.String(), rbdutil.MetaRecord, value)
}

// Owner returns the owner, without a claim, that the test's provisioner writes to images.
func (e *Env) Owner(t *testing.T) rbdutil.Owner {
	t.Helper()
	system, err := e.Client.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return rbdutil.Owner{Provisioner: e.Provisioner, ClusterID: string(system.UID)}
}

// Watchers returns the addresses of the clients that have an image mapped or open.
func (e *Env) Watchers(t *testing.T, ref rbdutil.ImageRef) []string {
	t.Helper()
	var status struct {
		Watchers []struct{ Address string }
	}
	e.Ceph.JSON(t, &status, "rbd", "status", ref.String())
	var addresses []string
	for _, watcher := range status.Watchers {
		addresses = append(addresses, watcher.Address)
	}
	return addresses
}

// RemoveImage removes an image that the test created or that the provisioner had to keep.
func (e *Env) RemoveImage(t *testing.T, ref rbdutil.ImageRef) {
	t.Helper()
	e.Ceph.Run(t, "rbd", "rm", "--no-progress", ref.String())
}
