//go:build e2e

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// purgeTimeout allows for a purge that is retried after a minute.
const purgeTimeout = framework.Timeout + time.Minute

// sumOf returns the checksum of the first size bytes of an image, which must have no data after
// them.
func sumOf(t *testing.T, e *framework.Env, image rbdutil.ImageRef, size int) string {
	t.Helper()
	data, err := e.Ceph.Try(t.Context(), "rbd", "export", "--no-progress", image.String(), "-")
	if err != nil {
		t.Fatal(err)
	}
	if len(data) < size || strings.Trim(string(data[size:]), "\x00") != "" {
		t.Fatalf("image %s has %d bytes, or data after the first %d", image, len(data), size)
	}
	sum := sha256.Sum256(data[:size])
	return hex.EncodeToString(sum[:])
}

// fill writes random data all over an image.
func fill(t *testing.T, e *framework.Env, image rbdutil.ImageRef) {
	t.Helper()
	e.Ceph.Run(t, "rbd", "bench", "--io-type", "write", "--io-pattern", "rand", "--io-size", "64K", "--io-total", "8M", image.String())
}

func TestClones(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	class := e.Class(t, "clones", framework.Expandable)
	const size = 32 << 20
	source := e.AwaitBound(t, e.Claim(t, "source", class, framework.Size("32Mi")))
	image := framework.ImageOf(source)
	fill(t, e, image)
	sum := sumOf(t, e, image, size)
	volumes := []*corev1.PersistentVolume{source}
	for _, clone := range []struct {
		name, source string
		options      []framework.ClaimOption
		capacity     string
	}{
		{"same", "source", nil, "32Mi"},
		{"larger", "source", []framework.ClaimOption{framework.Size("64Mi")}, "64Mi"},
		{"readers", "source", []framework.ClaimOption{framework.Modes(corev1.ReadOnlyMany)}, "32Mi"},
		{"of-a-clone", "same", nil, "32Mi"},
	} {
		claim := e.Claim(t, clone.name, class, append([]framework.ClaimOption{framework.Size("32Mi"), framework.CloneOf(clone.source)}, clone.options...)...)
		volume := e.AwaitBound(t, claim)
		ref := framework.ImageOf(volume)
		if got := sumOf(t, e, ref, size); got != sum {
			t.Errorf("%s has other data than its source", clone.name)
		}
		info := e.ImageInfo(t, ref)
		if !slices.Equal(info.Features, []string{"layering"}) || info.Format != 2 {
			t.Errorf("%s has format %d and the features %q", clone.name, info.Format, info.Features)
		}
		if got := volume.Spec.Capacity.Storage().String(); got != clone.capacity {
			t.Errorf("%s has %s, want %s", clone.name, got, clone.capacity)
		}
		volumes = append(volumes, volume)
	}
	// Writes to one image must not affect another.
	fill(t, e, image)
	if sumOf(t, e, image, size) == sum {
		t.Fatal("the write had no effect")
	}
	for _, volume := range volumes[1:] {
		if sumOf(t, e, framework.ImageOf(volume), size) != sum {
			t.Errorf("the clone %s has later data of its source", volume.Spec.ClaimRef.Name)
		}
	}
	// Delete the sources first. Their data is needed until the last clone is deleted.
	for i, volume := range volumes {
		e.DeleteClaim(t, volume.Spec.ClaimRef.Name)
		e.AwaitVolumeGone(t, volume)
		for _, left := range volumes[i+1:] {
			if sumOf(t, e, framework.ImageOf(left), size) != sum {
				t.Errorf("%s lost its data with the deletion of %s", left.Spec.ClaimRef.Name, volume.Spec.ClaimRef.Name)
			}
		}
	}
	wantPoolEmpty(t, e)
}

// wantPoolEmpty waits until the trash is empty and the pool uses no space.
func wantPoolEmpty(t *testing.T, e *framework.Env) {
	t.Helper()
	e.AwaitTrashEmpty(t, purgeTimeout)
	// Ceph removes the data of snapshots some time after them.
	e.Await(t, "the last object to be removed", framework.Timeout, func(ctx context.Context) error {
		out, err := e.Ceph.Try(ctx, "rados", "--pool", e.Pool, "ls")
		objects := slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool {
			return slices.Contains([]string{"rbd_directory", "rbd_info", "rbd_trash", "rbd_children"}, name)
		})
		if err == nil && len(objects) > 0 {
			err = fmt.Errorf("remaining: %q", objects)
		}
		return err
	})
	e.Await(t, "the pool's statistics to report no data", framework.Timeout, func(ctx context.Context) error {
		out, err := e.Ceph.Try(ctx, "rados", "df", "--pool", e.Pool, "--format", "json")
		if err != nil {
			return err
		}
		var df struct {
			Pools []struct {
				SizeBytes json.Number `json:"size_bytes"`
			}
		}
		if err := json.Unmarshal(out, &df); err != nil {
			return err
		}
		const least = 1 << 20
		if len(df.Pools) != 1 {
			return fmt.Errorf("got %d pools, want 1", len(df.Pools))
		}
		if used, err := df.Pools[0].SizeBytes.Int64(); err != nil || used > least {
			return fmt.Errorf("it has %s bytes", df.Pools[0].SizeBytes)
		}
		return nil
	})
}

// TestManyClonesOfOneSource also deletes the source while the clones exist. CLONES sets the
// number of clones.
func TestManyClonesOfOneSource(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	class := e.Class(t, "clones")
	const size = 16 << 20
	clones := fromEnv(t, "CLONES", 40)
	source := e.AwaitBound(t, e.Claim(t, "source", class, framework.Size("16Mi")))
	fill(t, e, framework.ImageOf(source))
	sum := sumOf(t, e, framework.ImageOf(source), size)
	begun := time.Now()
	var claims []*corev1.PersistentVolumeClaim
	for i := range clones {
		claims = append(claims, e.Claim(t, fmt.Sprintf("clone-%d", i), class, framework.Size("16Mi"), framework.CloneOf("source")))
	}
	var volumes []*corev1.PersistentVolume
	timeout := framework.Timeout + time.Duration(clones)*300*time.Millisecond
	for _, claim := range claims {
		volumes = append(volumes, e.AwaitBoundIn(t, claim, timeout))
	}
	t.Logf("%d clones bound in %s", clones, time.Since(begun).Round(time.Second))
	e.DeleteClaim(t, "source")
	e.AwaitVolumeGone(t, source)
	for _, volume := range volumes {
		if sumOf(t, e, framework.ImageOf(volume), size) != sum {
			t.Errorf("%s has other data than its source had", volume.Spec.ClaimRef.Name)
		}
	}
	for _, claim := range claims {
		e.DeleteClaim(t, claim.Name)
	}
	for _, volume := range volumes {
		e.AwaitVolumeGone(t, volume)
	}
	wantPoolEmpty(t, e)
}

// TestCloneAwaitsItsSource creates a clone's claim before its source.
func TestCloneAwaitsItsSource(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e, "--retry-interval-max=2s")
	class := e.Class(t, "clones")
	clone := e.Claim(t, "clone", class, framework.CloneOf("source"))
	e.AwaitEvent(t, clone, framework.Timeout, "ProvisioningFailed", "source claim source does not exist")
	e.Claim(t, "source", class)
	e.AwaitBound(t, clone)
}

// TestReadersAndTheUnmountedAwaitTheEndOfWriters has a client with the source mapped.
func TestReadersAndTheUnmountedAwaitTheEndOfWriters(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e, "--retry-interval-max=2s")
	class := e.Class(t, "clones")
	image := framework.ImageOf(e.AwaitBound(t, e.Claim(t, "source", class)))
	unmap := e.Ceph.Watch(t, image)
	e.AwaitBound(t, e.Claim(t, "at-any-moment", class, framework.CloneOf("source")))
	waiting := []*corev1.PersistentVolumeClaim{
		e.Claim(t, "readers", class, framework.CloneOf("source"), framework.Modes(corev1.ReadOnlyMany)),
		e.Claim(t, "unmounted", class, framework.CloneOf("source"), func(claim *corev1.PersistentVolumeClaim) {
			claim.Annotations = map[string]string{"rbd-provisioner.ceph.com/clone-unmounted": "true"}
		}),
	}
	for _, claim := range waiting {
		event := e.AwaitEvent(t, claim, framework.Timeout, "ProvisioningFailed", "image is in use: "+image.String(), "when no node has its source mounted")
		e.AwaitRepeat(t, event)
	}
	unmap()
	for _, claim := range waiting {
		e.AwaitBound(t, claim)
	}
}
