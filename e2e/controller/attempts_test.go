//go:build e2e

package controller

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// TestEarlierAttempts creates images with the names of claims before the provisioner starts:
// those of a killed provisioner, and those of others.
func TestEarlierAttempts(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	ours := func(claim *corev1.PersistentVolumeClaim, ref rbdutil.ImageRef) {
		owner := e.Owner(t)
		owner.ClaimUID = string(claim.UID)
		e.SetRecord(t, ref, rbdutil.Record{Owner: owner}.Encode())
	}
	create := func(ref rbdutil.ImageRef, size, features string) {
		e.Ceph.Run(t, "rbd", "create", "--size", size, "--image-feature", features, ref.String())
	}
	plain := e.Class(t, "plain")
	// Ceph adds fast-diff to these features.
	mapped := e.Class(t, "mapped", framework.Parameter("imageFeatures", "exclusive-lock,object-map"))
	cases := []struct {
		name, class string
		leave       func(*corev1.PersistentVolumeClaim, rbdutil.ImageRef)
		// taken is true if the image is used. Otherwise it is replaced by a new one or, if
		// event is set, the claim gets that event.
		taken bool
		event string
	}{
		{"finished", plain, func(claim *corev1.PersistentVolumeClaim, ref rbdutil.ImageRef) {
			create(ref, "1G", "layering")
			ours(claim, ref)
		}, true, ""},
		{"finished-with-more-features", mapped, func(claim *corev1.PersistentVolumeClaim, ref rbdutil.ImageRef) {
			create(ref, "1G", "exclusive-lock,object-map")
			ours(claim, ref)
		}, true, ""},
		{"without-size", plain, func(claim *corev1.PersistentVolumeClaim, ref rbdutil.ImageRef) {
			create(ref, "0", "layering")
			ours(claim, ref)
		}, true, ""},
		{"without-owner", plain, func(_ *corev1.PersistentVolumeClaim, ref rbdutil.ImageRef) {
			create(ref, "0", "layering")
		}, true, ""},
		{"with-other-features", mapped, func(_ *corev1.PersistentVolumeClaim, ref rbdutil.ImageRef) {
			create(ref, "0", "layering")
		}, false, ""},
		{"without-header", plain, func(_ *corev1.PersistentVolumeClaim, ref rbdutil.ImageRef) {
			e.Ceph.LeavePartial(t, ref)
		}, false, ""},
		{"of-nobody", plain, func(_ *corev1.PersistentVolumeClaim, ref rbdutil.ImageRef) {
			create(ref, "1G", "layering")
		}, false, "already exists for no known owner"},
		{"of-another-size", plain, func(claim *corev1.PersistentVolumeClaim, ref rbdutil.ImageRef) {
			create(ref, "2G", "layering")
			ours(claim, ref)
		}, false, "already exists with a size of 2147483648 bytes, requested are 1073741824"},
	}
	claims, ids := map[string]*corev1.PersistentVolumeClaim{}, map[string]string{}
	for _, test := range cases {
		claim := e.Claim(t, test.name, test.class)
		test.leave(claim, e.ImageFor(claim))
		claims[test.name] = claim
		if test.name != "without-header" {
			ids[test.name] = imageID(t, e, e.ImageFor(claim))
		}
	}
	start(t, e)
	for _, test := range cases {
		claim := claims[test.name]
		ref := e.ImageFor(claim)
		if test.event != "" {
			e.AwaitEvent(t, claim, framework.Timeout, "ProvisioningFailed", test.event, ref.String())
			if got := imageID(t, e, ref); got != ids[test.name] {
				t.Errorf("%s: image %s was replaced", test.name, ref)
			}
			e.RemoveImage(t, ref) // as the event suggests
		}
		e.AwaitBound(t, claim)
		if got := imageID(t, e, ref); (got == ids[test.name]) != test.taken {
			t.Errorf("%s: image %s has id %s, had %s before", test.name, ref, got, ids[test.name])
		}
		if got := e.ImageInfo(t, ref).Size; got != 1<<30 {
			t.Errorf("%s: image of %d bytes", test.name, got)
		}
		if got := e.Record(t, ref).VolumeName; got != "pvc-"+string(claim.UID) {
			t.Errorf("%s: its metadata names volume %q", test.name, got)
		}
	}
}

// imageID returns the ID that distinguishes images of the same name.
func imageID(t *testing.T, e *framework.Env, ref rbdutil.ImageRef) string {
	t.Helper()
	var info struct{ ID string }
	e.Ceph.JSON(t, &info, "rbd", "info", ref.String())
	return info.ID
}
