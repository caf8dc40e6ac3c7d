//go:build ceph

package librbd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest/cephcli"
)

// TestMain lets the test program be started once more, as one that makes or deletes
// an image and may be killed over it.
func TestMain(m *testing.M) {
	if encoded := os.Getenv(victimEnv); encoded != "" {
		if err := runVictim(encoded); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) //nolint:forbidigo // there is no other way to say it
		}
		return
	}
	m.Run()
}

const (
	victimEnv = "VICTIM"
	crashPool = "crashes"
)

// victim is what a process that is to be killed does.
type victim struct {
	Monitors []string
	User     string
	Spec     rbdutil.ImageSpec
	Delete   bool
}

func runVictim(encoded string) error {
	var v victim
	if err := json.Unmarshal([]byte(encoded), &v); err != nil {
		return err
	}
	store := librbd.New(librbd.Options{Timeout: 30 * time.Second, IdleTimeout: time.Minute})
	cluster := rbdutil.Cluster{Monitors: v.Monitors, User: v.User, Key: rbdutil.NewKey(os.Getenv("VICTIM_KEY"))}
	if v.Delete {
		images := rbdutil.NewImages(store)
		if err := images.Delete(context.Background(), cluster, v.Spec.ImageRef, expectationOf(v.Spec)); err != nil {
			return err
		}
		_, err := images.Purge(context.Background(), cluster, v.Spec.Pool, v.Spec.Name, v.Spec.Owner)
		return err
	}
	_, err := rbdutil.NewImages(store).Ensure(context.Background(), cluster, v.Spec)
	return err
}

func expectationOf(spec rbdutil.ImageSpec) rbdutil.Expectation {
	return rbdutil.Expectation{Owner: rbdutil.Owner{
		VolumeName: spec.Owner.VolumeName, Provisioner: spec.Owner.Provisioner, ClusterID: spec.Owner.ClusterID,
	}}
}

// crashes is a pool in which processes are killed over images.
type crashes struct {
	pool    string
	ceph    cephcli.Admin
	cluster rbdutil.Cluster
	images  *rbdutil.Images
	killer  string // path of the library that kills
}

func newCrashesIn(t *testing.T, pool string) *crashes {
	t.Helper()
	c := &crashes{pool: pool, killer: filepath.Join(t.TempDir(), "kill.so")}
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", c.killer, "testdata/kill.c", "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("compile testdata/kill.c: %v: %s", err, out)
	}
	c.ceph, c.cluster = newClusterWith(t, pool)
	c.images = rbdutil.NewImages(newStore(t, librbd.Options{}))
	return c
}

// specAt is the image over which a process is killed at message n while it is made or
// deleted.
func (c *crashes) specAt(verb string, n int) rbdutil.ImageSpec {
	uid := fmt.Sprintf("%s-%d", verb, n)
	return rbdutil.ImageSpec{
		ImageRef: rbdutil.ImageRef{Pool: c.pool, Name: "kubernetes-dynamic-pvc-" + uid},
		Layout:   rbdutil.Layout{Features: rbdutil.Layering}, Size: 8 * rbdutil.MiB,
		Owner: rbdutil.Owner{
			ClaimUID: uid, ClaimNamespace: "default", ClaimName: "claim", VolumeName: "pvc-" + uid,
			Provisioner: "ceph.com/rbd", ClusterID: "here",
		},
	}
}

// run starts a process that is killed instead of sending message n, and tells
// whether it was: it may be done before.
func (c *crashes) run(t *testing.T, n int, v victim) (killed bool) {
	t.Helper()
	v.Monitors, v.User = c.cluster.Monitors, c.cluster.User
	encoded, err := json.Marshal(v)
	if err != nil {
		t.Error(err)
		return false
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = []string{
		victimEnv + "=" + string(encoded), "VICTIM_KEY=" + c.cluster.Key.Reveal(),
		"LD_PRELOAD=" + c.killer, fmt.Sprintf("KILL_AT_MESSAGE=%d", n),
	}
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) && ctx.Err() == nil {
		status, _ := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() && status.Signal() == syscall.SIGKILL {
			return true
		}
	}
	if err != nil {
		t.Errorf("to be killed at message %d: %v: %s", n, err, out)
	}
	return false
}

// objects lists all RADOS objects of the pool, but for those that serve the pool as a
// whole and come to stay with its first image.
func (c *crashes) objects(t *testing.T) []string {
	t.Helper()
	objects := strings.Fields(c.ceph.Run(t, "rados", "--pool", c.pool, "ls"))
	objects = slices.DeleteFunc(objects, func(name string) bool {
		return slices.Contains([]string{"rbd_directory", "rbd_info", "rbd_trash", "rbd_children"}, name)
	})
	slices.Sort(objects)
	return objects
}

// awaitGone deletes an image until it is gone. A process that was killed with the
// image open holds it for another half minute.
func (c *crashes) awaitGone(t *testing.T, spec rbdutil.ImageSpec) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := c.images.Delete(ctx, c.cluster, spec.ImageRef, expectationOf(spec))
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, rbdutil.ErrImageInUse) || time.Now().After(deadline) {
			t.Fatalf("delete %s after a crash: %v", spec.ImageRef, err)
		}
	}
}

// awaitPurged empties the trash until nothing is in it.
func (c *crashes) awaitPurged(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		_, err := c.images.Purge(t.Context(), c.cluster, c.pool, "kubernetes-dynamic-pvc-", c.specAt("", 0).Owner)
		left := c.ceph.Run(t, "rbd", "trash", "ls", "--all", c.pool)
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("in the trash: %s: %v", left, err)
		}
	}
}

// TestKilledAtEveryMessage kills a process at each message that it sends to Ceph while
// it makes or deletes an image, and has another one finish the work. Nothing is left in
// the pool in the end, down to single RADOS objects.
func TestKilledAtEveryMessage(t *testing.T) {
	t.Parallel()
	c := newCrashesIn(t, crashPool)
	making, deleting := c.killMaking(t), c.killDeleting(t)
	t.Logf("killed at %d messages while making an image, at %d while deleting one", making, deleting)
	// Connecting alone takes more than a few messages.
	if making < 20 || deleting < 20 {
		t.Errorf("these are too few kills to have met every step")
	}
	c.finishMaking(t, making)
	for n := range making {
		c.awaitGone(t, c.specAt("made", n+1))
	}
	for n := range deleting {
		// Of every other, make one of the same name first: what is left of the one that
		// was being deleted may be in the trash, behind the new one's back.
		spec := c.specAt("deleted", n+1)
		if n%2 == 0 {
			_, err := c.images.Ensure(t.Context(), c.cluster, spec)
			if errors.Is(err, rbdutil.ErrImageExists) {
				// The old one still has the name, until it is in the trash for good.
				_, _ = c.images.Purge(t.Context(), c.cluster, c.pool, spec.Name, spec.Owner) // it may be held for a while yet
				_, err = c.images.Ensure(t.Context(), c.cluster, spec)
			}
			if err != nil {
				t.Errorf("made again after a crash at message %d: %v", n+1, err)
			}
		}
		c.awaitGone(t, spec)
	}
	c.awaitPurged(t)
	if left := c.objects(t); len(left) > 0 {
		t.Errorf("left in the pool: %q", left)
	}
}

// killMaking kills at message 1, 2, … until an image is made without a kill, and
// returns how many there were.
func (c *crashes) killMaking(t *testing.T) (kills int) {
	t.Helper()
	for c.run(t, kills+1, victim{Spec: c.specAt("made", kills+1)}) {
		kills++
	}
	c.awaitGone(t, c.specAt("made", kills+1))
	return kills
}

func (c *crashes) finishMaking(t *testing.T, kills int) {
	t.Helper()
	for n := range kills {
		spec := c.specAt("made", n+1)
		img, err := c.images.Ensure(t.Context(), c.cluster, spec)
		if err != nil {
			t.Errorf("after a crash at message %d: %v", n+1, err)
			continue
		}
		if img.Size != spec.Size || img.Owner() != spec.Owner {
			t.Errorf("after a crash at message %d the image is %+v", n+1, img)
		}
	}
	if made := slices.DeleteFunc(c.ceph.Images(t, c.pool), func(name string) bool {
		return !strings.Contains(name, "-made-")
	}); len(made) != kills {
		t.Errorf("%d images, want %d: %q", len(made), kills, made)
	}
}

// killDeleting does the same while images with data in them are deleted.
func (c *crashes) killDeleting(t *testing.T) (kills int) {
	t.Helper()
	for {
		spec := c.specAt("deleted", kills+1)
		if _, err := c.images.Ensure(t.Context(), c.cluster, spec); err != nil {
			t.Fatal(err)
		}
		c.ceph.Write(t, spec.ImageRef)
		if !c.run(t, kills+1, victim{Spec: spec, Delete: true}) {
			return kills
		}
		kills++
	}
}
