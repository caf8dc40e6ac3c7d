//go:build e2e

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// soakHits is the minimum number of kills while an image had no volume yet. With fewer, the
// test is not effective.
const soakHits = 3

// TestSoak kills the provisioner repeatedly while claims of several kinds, including clones,
// are created and deleted, bound or not. Sometimes it pauses the provisioner instead, and
// resumes it when another leads. At the end each claim has one volume, each volume one image,
// each clone its snapshot, and no other objects exist. A complete clone whose claim was deleted
// before its volume was created is kept and reported. The test removes such clones.
//
// SOAK_CLAIMS and SOAK_KILLS set the size; SOAK_SEED repeats the random choices, though not the
// timing.
func TestSoak(t *testing.T) {
	t.Parallel()
	claims, kills := fromEnv(t, "SOAK_CLAIMS", 300), fromEnv(t, "SOAK_KILLS", 20)
	seed := fromEnv(t, "SOAK_SEED", int(time.Now().UnixNano()))
	t.Logf("SOAK_SEED=%d", seed)
	e := newEnv(t)
	s := &soak{
		Env: e, rng: rand.New(rand.NewPCG(uint64(seed), 0)), claims: claims, perRound: (claims + kills - 1) / kills,
		classes: []string{
			e.Class(t, "ext4"),
			e.Class(t, "xfs", framework.Parameter("fsType", "xfs"), framework.Parameter("objectSize", "1Mi")),
			e.Class(t, "fast", framework.Parameter("imageFeatures", "layering,exclusive-lock,object-map,fast-diff")),
		},
	}
	s.makeBases(t)
	for s.kills < kills || s.created < claims || s.hits < soakHits {
		s.round(t)
	}
	s.awaitIdle(t)
	t.Log(s.tally())
}

func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number of at least 1", name, text)
	}
	return n
}

// soak is the state of the test.
type soak struct {
	*framework.Env
	rng              *rand.Rand
	classes          []string
	bases            []*corev1.PersistentVolume
	claims, perRound int

	created, deletedBound, deletedUnbound int
	kills, pauses, hits, swept, kept      int
}

// soakPauses is the average number of rounds per pause.
const soakPauses = 6

func (s *soak) tally() string {
	return fmt.Sprintf("%d claims, of which %d were deleted when bound and %d before; %d kills, %d of them with an image that had no volume yet; "+
		"%d pauses; %d images without claim and volume were removed, and %d complete clones were reported",
		s.created, s.deletedBound, s.deletedUnbound, s.kills, s.hits, s.pauses, s.swept, s.kept)
}

// makeBases creates one permanent claim of each class, as source of clones.
func (s *soak) makeBases(t *testing.T) {
	t.Helper()
	p := framework.Start(t, s.Env, "--leader-election=false")
	for i, class := range s.classes {
		s.bases = append(s.bases, s.AwaitBound(t, s.Claim(t, fmt.Sprint(basePrefix, i), class)))
	}
	p.Kill(t)
}

// basePrefix is the prefix of the permanent claims' names.
const basePrefix = "base-"

// round runs one provisioner until it is killed.
func (s *soak) round(t *testing.T) {
	t.Helper()
	flags := []string{"--leader-election=false"}
	pause := s.rng.IntN(soakPauses) == 0
	if pause {
		flags = shortLease
	}
	p := s.start(t, flags)
	s.create(t)
	s.deleteSome(t)
	s.wait()
	if pause {
		p = s.pause(t, p)
	}
	p.Kill(t)
	s.kills++
	s.swept += strings.Count(p.Log(), "Removed empty orphaned image")
	if s.imagesWithoutVolume(t) > 0 {
		s.hits++
	}
}

func (s *soak) start(t *testing.T, flags []string) *framework.Process {
	t.Helper()
	p := framework.Start(t, s.Env, append(slices.Clone(flags), "--orphan-grace=2s")...)
	p.AwaitLog(t, s.Env, "Started provisioner controller")
	return p
}

// wait waits for a random time, up to 0.7 s.
func (s *soak) wait() { time.Sleep(time.Duration(s.rng.IntN(700)) * time.Millisecond) }

// pause pauses a leader until another one leads, and returns that one.
func (s *soak) pause(t *testing.T, p *framework.Process) *framework.Process {
	t.Helper()
	p.Pause(t)
	next := s.start(t, shortLease)
	s.deleteSome(t)
	s.wait()
	p.Resume(t)
	if code := p.AwaitExit(t); code != 1 {
		t.Errorf("exit code %d of a leader that was paused, want 1", code)
	}
	s.pauses++
	s.swept += strings.Count(p.Log(), "Removed empty orphaned image")
	return next
}

// create creates the round's share of claims, or one if all were created.
func (s *soak) create(t *testing.T) {
	t.Helper()
	for range max(1, min(s.perRound, s.claims-s.created)) {
		var options []framework.ClaimOption
		class := s.rng.IntN(len(s.classes))
		switch s.rng.IntN(5) {
		case 0, 1:
			options = append(options, framework.Block)
		case 2:
			options = append(options, framework.CloneOf(fmt.Sprint(basePrefix, class)), framework.Size(fmt.Sprint(1+s.rng.IntN(2), "Gi")))
		}
		s.Claim(t, fmt.Sprintf("claim-%d", s.created), s.classes[class], options...)
		s.created++
	}
}

// deleteSome deletes random claims, up to a third of the round's share.
func (s *soak) deleteSome(t *testing.T) {
	t.Helper()
	claims, err := s.Claims(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	claims = slices.DeleteFunc(claims, func(claim corev1.PersistentVolumeClaim) bool {
		return claim.DeletionTimestamp != nil || strings.HasPrefix(claim.Name, basePrefix)
	})
	s.rng.Shuffle(len(claims), func(i, j int) { claims[i], claims[j] = claims[j], claims[i] })
	for _, claim := range claims[:min(len(claims), (s.perRound+2)/3)] {
		err := s.Client.CoreV1().PersistentVolumeClaims(s.Namespace).Delete(t.Context(), claim.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		if claim.Status.Phase == corev1.ClaimBound {
			s.deletedBound++
		} else {
			s.deletedUnbound++
		}
	}
}

// imagesWithoutVolume returns the number of images without a volume.
func (s *soak) imagesWithoutVolume(t *testing.T) int {
	t.Helper()
	volumes, err := s.Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, volume := range volumes {
		have[volume.Spec.RBD.RBDImage] = true
	}
	n := 0
	for _, image := range s.Ceph.Images(t, s.Pool) {
		if !have[image] {
			n++
		}
	}
	return n
}

// awaitIdle starts a last provisioner and waits until all work is done.
func (s *soak) awaitIdle(t *testing.T) {
	t.Helper()
	p := framework.Start(t, s.Env, "--leader-election=false", "--orphan-grace=2s")
	begun := time.Now()
	timeout := 2*framework.Timeout + time.Duration(s.created)*200*time.Millisecond
	s.Await(t, "one bound claim, volume and image for each claim, and no other", timeout, func(ctx context.Context) error {
		if err := s.removeKept(ctx, p.Log()); err != nil {
			return err
		}
		return s.checkAll(ctx)
	})
	t.Logf("idle %s after the last kill", time.Since(begun).Round(100*time.Millisecond))
	s.swept += strings.Count(p.Log(), "Removed empty orphaned image")
}

// keptClone matches the log of a complete clone without a claim.
var keptClone = regexp.MustCompile(`"Orphaned image holds data, not removing" image="[^"/]+/([^"]+)" err="[^"]* is a complete clone"`)

// removeKept removes the clones that the log names. The provisioner removes their snapshots.
func (s *soak) removeKept(ctx context.Context, log string) error {
	images, err := s.TryImages(ctx)
	if err != nil {
		return err
	}
	for _, match := range keptClone.FindAllStringSubmatch(log, -1) {
		if !slices.Contains(images, match[1]) {
			continue // removed after an earlier report
		}
		if _, err := s.Ceph.Try(ctx, "rbd", "rm", "--no-progress", s.Pool+"/"+match[1]); err != nil {
			return err
		}
		s.kept++
		images = slices.DeleteFunc(images, func(name string) bool { return name == match[1] })
	}
	return nil
}

func (s *soak) checkAll(ctx context.Context) error {
	claims, err := s.Claims(ctx)
	if err != nil {
		return err
	}
	if want := len(s.bases) + s.created - s.deletedBound - s.deletedUnbound; len(claims) != want {
		return fmt.Errorf("%d claims, want %d", len(claims), want)
	}
	want := map[string]string{} // image name by claim name
	for _, claim := range claims {
		if claim.Status.Phase != corev1.ClaimBound {
			return fmt.Errorf("claim %s is %s", claim.Name, claim.Status.Phase)
		}
		want[claim.Name] = s.ImageFor(&claim).Name
	}
	volumes, err := s.Volumes(ctx)
	if err != nil {
		return err
	}
	got := map[string]string{}
	for _, volume := range volumes {
		got[volume.Spec.ClaimRef.Name] = volume.Spec.RBD.RBDImage
	}
	if diff := cmp.Diff(want, got); diff != "" || len(volumes) != len(want) {
		return fmt.Errorf("%d volumes for %d claims: images of volumes (-want +got):\n%s", len(volumes), len(want), diff)
	}
	images, err := s.TryImages(ctx)
	if err != nil {
		return err
	}
	expected := make([]string, 0, len(want))
	for _, image := range want {
		expected = append(expected, image)
	}
	slices.Sort(images)
	slices.Sort(expected)
	if diff := cmp.Diff(expected, images); diff != "" {
		return fmt.Errorf("images (-want +got):\n%s", diff)
	}
	trash, err := s.TryTrash(ctx)
	if err == nil && len(trash) > 0 {
		err = fmt.Errorf("the trash has %q", trash)
	}
	if err != nil {
		return err
	}
	return s.checkSnapshots(ctx, claims)
}

// checkSnapshots requires as many snapshots of each base as it has clones.
func (s *soak) checkSnapshots(ctx context.Context, claims []corev1.PersistentVolumeClaim) error {
	for i, base := range s.bases {
		want := 0
		for _, claim := range claims {
			if source := claim.Spec.DataSource; source != nil && source.Name == fmt.Sprint(basePrefix, i) {
				want++
			}
		}
		out, err := s.Ceph.Try(ctx, "rbd", "snap", "ls", "--all", framework.ImageOf(base).String(), "--format", "json")
		if err != nil {
			return err
		}
		var snapshots []struct{ Name string }
		if err := json.Unmarshal(out, &snapshots); err != nil {
			return err
		}
		if len(snapshots) != want {
			return fmt.Errorf("%s%d has %d snapshots and %d clones: %v", basePrefix, i, len(snapshots), want, snapshots)
		}
	}
	return nil
}
