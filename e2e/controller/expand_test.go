//go:build e2e

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// The lab's controller manager has no rbd command, like the stock image, and still tries to
// expand every rbd volume. `make test-ceph` repeats the tests of this file with a controller
// manager that has the command.

func TestExpansion(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	class := e.Class(t, "growing", framework.Expandable)
	volumes := map[string]*corev1.PersistentVolume{
		"filesystem": e.AwaitBound(t, e.Claim(t, "filesystem", class)),
		"block":      e.AwaitBound(t, e.Claim(t, "block", class, framework.Block)),
	}
	for name := range volumes {
		e.RequestSize(t, name, "2Gi")
	}
	for name, volume := range volumes {
		e.AwaitVolumeSize(t, volume.Name, "2Gi")
		e.AwaitEvent(t, e.GetClaim(t, name), framework.Timeout, map[string]string{
			"filesystem": "FileSystemResizeRequired", "block": "VolumeResizeSuccessful",
		}[name], "the image of volume "+volume.Name+" has 2Gi")
	}
	e.AwaitFileSystemPending(t, "filesystem")
	e.AwaitSize(t, "block", "2Gi", framework.Timeout)
	if has := e.GetClaim(t, "filesystem").Status.Capacity[corev1.ResourceStorage]; !has.Equal(resource.MustParse("1Gi")) {
		t.Errorf("a claim whose file system was not expanded has %s", has.String())
	}
	// Several requests, faster than they are served.
	for n := 3; n <= 9; n++ {
		for name := range volumes {
			e.RequestSize(t, name, fmt.Sprint(n, "Gi"))
		}
	}
	for _, volume := range volumes {
		e.AwaitVolumeSize(t, volume.Name, "9Gi")
	}
	e.AwaitSize(t, "block", "9Gi", framework.Timeout)
	e.AwaitFileSystemPending(t, "filesystem")
}

// TestExpansionOfAnImageThatIsLargerAlready is not repeated with a controller manager that has the
// rbd command. That one writes the requested size to the volume, before or after the provisioner
// writes the true one.
func TestExpansionOfAnImageThatIsLargerAlready(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	class := e.Class(t, "growing", framework.Expandable)
	volume := e.AwaitBound(t, e.Claim(t, "data", class, framework.Block))
	e.Ceph.Run(t, "rbd", "resize", "--no-progress", "--size", "5G", framework.ImageOf(volume).String())
	e.RequestSize(t, "data", "2Gi")
	e.AwaitVolumeSize(t, volume.Name, "5Gi")
	// The expand controller of Kubernetes may complete the claim first, with the requested size.
	e.Await(t, "claim data to have 2Gi or 5Gi", framework.Timeout, func(context.Context) error {
		status := e.GetClaim(t, "data").Status
		has := status.Capacity[corev1.ResourceStorage]
		if !has.Equal(resource.MustParse("2Gi")) && !has.Equal(resource.MustParse("5Gi")) || len(status.Conditions) > 0 {
			return fmt.Errorf("it has %s and the conditions %v", has.String(), status.Conditions)
		}
		return nil
	})
}

// TestExpansionWhileThePoolIsFull expands images in a full pool. A larger image takes no space,
// nor does its object map by Ceph's count.
func TestExpansionWhileThePoolIsFull(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	volumes := map[string]*corev1.PersistentVolume{
		"plain": e.AwaitBound(t, e.Claim(t, "plain", e.Class(t, "plain", framework.Expandable), framework.Block)),
		"mapped": e.AwaitBound(t, e.Claim(t, "mapped", e.Class(t, "mapped", framework.Expandable,
			framework.Parameter("imageFeatures", "layering,exclusive-lock,object-map,fast-diff")), framework.Block)),
	}
	setQuota(t, e, 1)
	for name, volume := range volumes {
		e.RequestSize(t, name, "1Ti")
		e.AwaitVolumeSize(t, volume.Name, "1Ti")
		e.AwaitSize(t, name, "1Ti", framework.Timeout)
	}
	setQuota(t, e, 0)
}

// TestExpansionThatFails reports the failure on the claim, and succeeds after its cause is
// fixed.
func TestExpansionThatFails(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e, "--retry-interval-max=2s")
	volume := e.AwaitBound(t, e.Claim(t, "data", e.Class(t, "growing", framework.Expandable), framework.Block))
	e.PutSecret(t, framework.AdminSecret, e.NewUser(t, e.User+"-other", e.Pool).Reveal())
	e.RequestSize(t, "data", "2Gi")
	event := e.AwaitEvent(t, e.GetClaim(t, "data"), framework.Timeout, "VolumeResizeFailed",
		"access denied by Ceph", "check that secret "+e.Namespace+"/"+framework.AdminSecret+" holds the key of client."+e.User)
	e.AwaitRepeat(t, event)
	if capacity := e.GetVolume(t, volume.Name).Spec.Capacity.Storage(); capacity.String() != "1Gi" {
		t.Errorf("the volume has %s", capacity)
	}
	e.PutSecret(t, framework.AdminSecret, e.Key.Reveal())
	e.AwaitVolumeSize(t, volume.Name, "2Gi")
	e.AwaitSize(t, "data", "2Gi", framework.Timeout)
}

// setQuota limits the number of objects in the test's pool, 0 for no limit, and waits until
// Ceph applies it.
func setQuota(t *testing.T, e *framework.Env, objects int) {
	t.Helper()
	e.Ceph.Run(t, "ceph", "osd", "pool", "set-quota", e.Pool, "max_objects", fmt.Sprint(objects))
	e.Await(t, "the quota to be applied", framework.Timeout, func(ctx context.Context) error {
		out, err := e.Ceph.Try(ctx, "ceph", "osd", "pool", "ls", "detail", "--format", "json")
		if err != nil {
			return err
		}
		var pools []struct {
			Name  string `json:"pool_name"`
			Flags string `json:"flags_names"`
		}
		if err := json.Unmarshal(out, &pools); err != nil {
			return err
		}
		for _, pool := range pools {
			if pool.Name == e.Pool && strings.Contains(pool.Flags, "full") == (objects > 0) {
				return nil
			}
		}
		return errors.New("it is not applied yet")
	})
}

// TestExpansionOfVolumesOfTheRetiredProvisioner uses the class for the information that the
// volumes lack.
func TestExpansionOfVolumesOfTheRetiredProvisioner(t *testing.T) {
	e := newDefaultEnv(t)
	class := e.RetiredClass(t, framework.Expandable)
	volume := retiredVolume(t, e, "old", class)
	start(t, e)
	e.RequestSize(t, "old", "3Gi")
	e.AwaitVolumeSize(t, volume.Name, "3Gi")
	e.AwaitFileSystemPending(t, "old")
}
