//go:build e2e

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

const (
	// stormClaims is how many claims there are in all, stormKills how often the
	// provisioner is killed over them, at the least.
	stormClaims = 40
	stormKills  = 15
	// stormHits is how many of the kills must have come when there was an image but
	// not its volume yet, for the test to have tested something.
	stormHits = 3
	// maxKills is when it gives up to wait for that.
	maxKills = 60
)

// TestKilledAtAnyMoment kills the provisioner again and again while claims come and
// go. In the end each claim has one image, and each image a claim.
//
// Claims are deleted only after they were bound: of a claim that is deleted while
// no provisioner runs that knows of it, nobody will ever ask for the image.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := &storm{Env: e, class: e.Class(t, "storm")}
	kills, hits := 0, 0
	for ; kills < stormKills || hits < stormHits; kills++ {
		if kills == maxKills {
			t.Fatalf("of %d kills %d left an image without a volume, want %d", kills, hits, stormHits)
		}
		p := start(t, e, "--leader-election=false")
		s.work(t, kills)
		s.awaitActivity(t)
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // any moment of what has begun
		p.Kill(t)
		if s.halfMade(t) > 0 {
			hits++
		}
	}
	t.Logf("%d kills, after %d of which an image had no volume", kills, hits)

	start(t, e, "--leader-election=false")
	var want []string
	for _, claim := range s.awaitRest(t) {
		volume := e.AwaitBound(t, &claim)
		want = append(want, volume.Spec.RBD.RBDImage)
		if got := framework.ImageOf(volume); got != e.ImageFor(&claim) {
			t.Errorf("claim %s has image %s", claim.Name, got)
		}
	}
	slices.Sort(want)
	e.Await(t, "one image for each claim", framework.Patience, func(ctx context.Context) error {
		return s.compare(ctx, want)
	})
}

// storm is a crowd of claims that come and go.
type storm struct {
	*framework.Env
	class            string
	created, deleted int
	// known are the events that have been there before.
	known map[types.UID]int32
}

// work creates a few claims, as long as there are to be more, and deletes a bound
// one. When all are there, a new one replaces the deleted.
func (s *storm) work(t *testing.T, round int) {
	t.Helper()
	s.known = s.starts(t)
	if round > 0 {
		s.deleteBound(t)
	}
	for n := 0; n == 0 || n < 3 && s.created < stormClaims; n++ {
		s.Claim(t, fmt.Sprintf("claim-%d", s.created), s.class)
		s.created++
	}
}

func (s *storm) deleteBound(t *testing.T) {
	t.Helper()
	claims, err := s.Claims(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bound := slices.DeleteFunc(claims, func(claim corev1.PersistentVolumeClaim) bool {
		return claim.Status.Phase != corev1.ClaimBound || claim.DeletionTimestamp != nil
	})
	if len(bound) == 0 {
		return
	}
	name := bound[rand.IntN(len(bound))].Name
	if err := s.Client.CoreV1().PersistentVolumeClaims(s.Namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.deleted++
}

// awaitRest waits until the deleted claims are gone and returns those left.
func (s *storm) awaitRest(t *testing.T) []corev1.PersistentVolumeClaim {
	t.Helper()
	var claims []corev1.PersistentVolumeClaim
	s.Await(t, "deleted claims to be gone", framework.Patience, func(ctx context.Context) (err error) {
		claims, err = s.Claims(ctx)
		if want := s.created - s.deleted; err == nil && len(claims) != want {
			err = fmt.Errorf("%d claims, want %d", len(claims), want)
		}
		return err
	})
	return claims
}

// awaitActivity waits until the provisioner has begun with a claim.
func (s *storm) awaitActivity(t *testing.T) {
	t.Helper()
	s.Await(t, "a claim to be begun", framework.Patience, func(context.Context) error {
		for event, count := range s.starts(t) {
			if count > s.known[event] {
				return nil
			}
		}
		return fmt.Errorf("none is")
	})
}

// starts counts the events that say that a claim was begun.
func (s *storm) starts(t *testing.T) map[types.UID]int32 {
	t.Helper()
	list, err := s.Client.CoreV1().Events(s.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=Provisioning"})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[types.UID]int32{}
	for _, event := range list.Items {
		counts[event.UID] = event.Count
	}
	return counts
}

// halfMade counts the images that have no volume.
func (s *storm) halfMade(t *testing.T) int {
	t.Helper()
	volumes, err := s.Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, image := range s.Ceph.Images(t, s.Pool) {
		if !slices.ContainsFunc(volumes, func(volume corev1.PersistentVolume) bool { return volume.Spec.RBD.RBDImage == image }) {
			n++
		}
	}
	return n
}

// compare tells how the images in the pool and the volumes differ from those wanted.
func (s *storm) compare(ctx context.Context, want []string) error {
	out, err := s.Ceph.Try(ctx, "rbd", "ls", s.Pool, "--format", "json")
	if err != nil {
		return err
	}
	var images []string
	if err := json.Unmarshal(out, &images); err != nil {
		return err
	}
	slices.Sort(images)
	if !slices.Equal(images, want) {
		return fmt.Errorf("%d images:\n%s\nwant %d:\n%s", len(images), strings.Join(images, "\n"), len(want), strings.Join(want, "\n"))
	}
	volumes, err := s.Volumes(ctx)
	if err == nil && len(volumes) != len(want) {
		err = fmt.Errorf("%d volumes, want %d", len(volumes), len(want))
	}
	return err
}
