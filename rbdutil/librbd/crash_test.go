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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest/cephcli"
)

// TestMain runs the test program as a victim if the environment says so: a process that
// changes an image and may be killed.
func TestMain(m *testing.M) {
	if encoded := os.Getenv(victimEnv); encoded != "" {
		if err := runVictim(encoded); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) //nolint:forbidigo // there is no other way to say it
		}
		return
	}
	if err := checkLibrary(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // the exit code of a TestMain
	}
	m.Run()
}

// checkLibrary checks that the library is that of the Ceph version WANT_LIBRBD, if that is set. So
// a run for one version cannot pass with another.
func checkLibrary() error {
	// The second number is the version of Ceph.
	major, minor, patch := rbd.Version()
	if want := os.Getenv("WANT_LIBRBD"); want != "" && want != strconv.Itoa(minor) {
		return fmt.Errorf("the library is librbd %d.%d.%d, not that of Ceph %s", major, minor, patch, want)
	}
	return nil
}

const (
	victimEnv = "VICTIM"
	crashPool = "crashes"
)

// victim is the operation of a process that is killed or stopped.
type victim struct {
	Monitors []string
	User     string
	Spec     rbdutil.ImageSpec
	Do       verb
	// Keep is how long an image is kept in the trash.
	Keep time.Duration
	// Lease is a folder in which the process registers its client, or empty.
	Lease string
}

// verb is an operation on the image of the spec.
type verb string

const (
	makeImage   verb = "make"
	grow        verb = "grow" // to twice the size of the spec
	moveToTrash verb = "move to the trash"
	remove      verb = "remove from the trash"
	deleteImage verb = "delete" // move and remove
	restore     verb = "restore from the trash"
)

func runVictim(encoded string) error {
	var v victim
	if err := json.Unmarshal([]byte(encoded), &v); err != nil {
		return err
	}
	opts := librbd.Options{Timeout: 30 * time.Second, IdleTimeout: time.Minute}
	if v.Lease != "" {
		opts.Clients = leaseFolder(v.Lease)
	}
	cluster := rbdutil.Cluster{Monitors: v.Monitors, User: v.User, Key: rbdutil.NewKey(os.Getenv("VICTIM_KEY"))}
	return v.run(context.Background(), rbdutil.NewImages(librbd.New(opts)), cluster, v.Do)
}

// run runs the operation.
func (v victim) run(ctx context.Context, images *rbdutil.Images, cluster rbdutil.Cluster, do verb) error {
	spec := v.Spec
	switch do {
	case makeImage:
		_, err := images.Ensure(ctx, cluster, spec)
		return err
	case grow:
		_, err := images.Expand(ctx, cluster, spec.ImageRef, 2*spec.Size, preconditionOf(spec))
		return err
	case moveToTrash:
		return images.Delete(ctx, cluster, spec.ImageRef, preconditionOf(spec), v.Keep)
	case remove:
		return rbdtest.EmptyTrash(ctx, images, cluster, spec.ImageRef, spec.Owner)
	case deleteImage:
		if err := v.run(ctx, images, cluster, moveToTrash); err != nil {
			return err
		}
		return v.run(ctx, images, cluster, remove)
	case restore:
		trashed, err := images.ListTrash(ctx, cluster, spec.Pool)
		for _, img := range trashed {
			if img.Name == spec.Name {
				err = errors.Join(err, images.Restore(ctx, cluster, spec.Pool, img))
			}
		}
		return err
	default:
		return fmt.Errorf("unknown verb %q", do)
	}
}

func preconditionOf(spec rbdutil.ImageSpec) rbdutil.Precondition {
	return rbdutil.Precondition{Owner: rbdutil.Owner{
		VolumeName: spec.Owner.VolumeName, Provisioner: spec.Owner.Provisioner, ClusterID: spec.Owner.ClusterID,
	}}
}

// crashes is a pool in which processes are killed.
type crashes struct {
	pool    string
	ceph    cephcli.Admin
	cluster rbdutil.Cluster
	images  *rbdutil.Images
	killer  string // path of the library that kills the process
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

// specAt is the image of the process that is killed at message n.
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

// run starts a process that is killed instead of sending message n, and reports whether it
// was killed: it may have ended before.
func (c *crashes) run(t *testing.T, n int, v victim) (killed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := c.command(ctx, t, v, fmt.Sprintf("KILL_AT_MESSAGE=%d", n)).CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) && ctx.Err() == nil {
		status, _ := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() && status.Signal() == syscall.SIGKILL {
			return true
		}
	}
	if err != nil {
		t.Errorf("process to be killed at message %d: %v: %s", n, err, out)
	}
	return false
}

// command returns the process of the victim.
func (c *crashes) command(ctx context.Context, t *testing.T, v victim, env ...string) *exec.Cmd {
	t.Helper()
	v.Monitors, v.User = c.cluster.Monitors, c.cluster.User
	encoded, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(cmd.Env, env...)
	cmd.Env = append(cmd.Env, victimEnv+"="+string(encoded), "VICTIM_KEY="+c.cluster.Key.Reveal(), "LD_PRELOAD="+c.killer)
	return cmd
}

// objects lists the RADOS objects of the pool, except those that belong to no image and
// remain after the first one.
func (c *crashes) objects(t *testing.T) []string {
	t.Helper()
	objects := strings.Fields(c.ceph.Run(t, "rados", "--pool", c.pool, "ls"))
	objects = slices.DeleteFunc(objects, func(name string) bool {
		return slices.Contains([]string{"rbd_directory", "rbd_info", "rbd_trash", "rbd_children"}, name)
	})
	slices.Sort(objects)
	return objects
}

// awaitGone deletes an image until that succeeds. A killed process remains a watcher for half a
// minute.
func (c *crashes) awaitGone(t *testing.T, spec rbdutil.ImageSpec) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := c.images.Delete(ctx, c.cluster, spec.ImageRef, preconditionOf(spec), 0)
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, rbdutil.ErrImageInUse) || time.Now().After(deadline) {
			t.Fatalf("delete %s after a crash: %v", spec.ImageRef, err)
		}
	}
}

// anySpec has the common prefix of the names of all images.
func (c *crashes) anySpec() rbdutil.ImageSpec {
	spec := c.specAt("", 0)
	spec.Name = "kubernetes-dynamic-pvc-"
	return spec
}

// emptyTrash removes the images from the trash whose names have the spec's as prefix.
func (c *crashes) emptyTrash(ctx context.Context, spec rbdutil.ImageSpec) error {
	return rbdtest.EmptyTrash(ctx, c.images, c.cluster, spec.ImageRef, spec.Owner)
}

// awaitPurged empties the trash until it has no entries.
func (c *crashes) awaitPurged(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		err := c.emptyTrash(t.Context(), c.anySpec())
		left := c.ceph.Run(t, "rbd", "trash", "ls", "--all", c.pool)
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("in the trash: %s: %v%s", left, err, c.whyTrashed(t))
		}
	}
}

// whyTrashed returns why each image in the trash is not removed.
func (c *crashes) whyTrashed(t *testing.T) string {
	t.Helper()
	trashed, err := c.images.ListTrash(t.Context(), c.cluster, c.pool)
	why := fmt.Sprint("; list: ", err)
	for _, img := range trashed {
		err := c.images.RemoveFromTrash(t.Context(), c.cluster, c.pool, img, c.anySpec().Owner)
		snapshots, listErr := c.ceph.Try(t.Context(), "rbd", "snap", "ls", "--all", "--pool", c.pool, "--image-id", img.ID)
		why += fmt.Sprintf("\n%+v: %v; snapshots: %s%v", img, err, snapshots, listErr)
	}
	children, err := c.ceph.Try(t.Context(), "rados", "--pool", c.pool, "listomapvals", "rbd_children")
	return why + fmt.Sprintf("\nchildren: %s%v", children, err)
}

// TestKilledAtEveryMessage kills a process at each message that it sends to Ceph while it
// creates or deletes an image. Another process completes the operation. At the end, the pool
// has no RADOS objects.
func TestKilledAtEveryMessage(t *testing.T) {
	t.Parallel()
	c := newCrashesIn(t, crashPool)
	making, deleting := c.killMaking(t), c.killDeleting(t)
	t.Logf("killed at %d messages of a creation, at %d of a deletion", making, deleting)
	// The connection alone takes several messages.
	if making < 20 || deleting < 20 {
		t.Errorf("too few kills to interrupt each step")
	}
	c.finishMaking(t, making)
	for n := range making {
		c.awaitGone(t, c.specAt("made", n+1))
	}
	for n := range deleting {
		// For each second image, create another one of the same name first: the rest of the
		// deleted one may be in the trash.
		spec := c.specAt("deleted", n+1)
		if n%2 == 0 {
			_, err := c.images.Ensure(t.Context(), c.cluster, spec)
			if errors.Is(err, rbdutil.ErrImageExists) {
				// The old image has the name until its move to the trash is completed.
				_ = c.emptyTrash(t.Context(), spec) // it may still have a watcher
				_, err = c.images.Ensure(t.Context(), c.cluster, spec)
			}
			if err != nil {
				t.Errorf("create again after a crash at message %d: %v", n+1, err)
			}
		}
		c.awaitGone(t, spec)
	}
	c.awaitPurged(t)
	if left := c.objects(t); len(left) > 0 {
		t.Errorf("objects %q remain in the pool", left)
	}
}

// killMaking kills the creation of images at message 1, 2, … until one ends without a kill. It
// returns the number of kills.
func (c *crashes) killMaking(t *testing.T) (kills int) {
	t.Helper()
	for c.run(t, kills+1, victim{Spec: c.specAt("made", kills+1), Do: makeImage}) {
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

// killDeleting does the same for the deletion of images with data.
func (c *crashes) killDeleting(t *testing.T) (kills int) {
	t.Helper()
	for {
		spec := c.specAt("deleted", kills+1)
		if _, err := c.images.Ensure(t.Context(), c.cluster, spec); err != nil {
			t.Fatal(err)
		}
		c.ceph.Write(t, spec.ImageRef)
		if !c.run(t, kills+1, victim{Spec: spec, Do: deleteImage}) {
			return kills
		}
		kills++
	}
}

// TestKeptThroughAKillAtEveryMessage kills a process at each message that it sends to Ceph
// while it moves an image to the trash, to be kept there. Then the image is in the pool or in
// the trash, is not removed, and can be restored with its data. If it is in both, it can be
// deleted again, and is kept for the time of that deletion.
func TestKeptThroughAKillAtEveryMessage(t *testing.T) {
	t.Parallel()
	c := newCrashesIn(t, "kept-crashes")
	kills, inTrash, inBoth, first := 0, 0, 0, 0
	count := func(trash, both bool, n int) {
		if trash {
			inTrash++
			if first == 0 {
				first = n
			}
		}
		if both {
			inBoth++
		}
	}
	for ; ; kills++ {
		killed, trash, both := c.keepThroughKill(t, "kept", kills+1)
		count(trash, both, kills+1)
		if !killed {
			break
		}
	}
	// The image is in both only between two messages, whose numbers vary.
	for round := 1; inBoth == 0 && round <= 5; round++ {
		for n := max(1, first-6); n <= first && inBoth == 0; n++ {
			_, trash, both := c.keepThroughKill(t, fmt.Sprintf("kept-%d", round), n)
			count(trash, both, n)
		}
	}
	t.Logf("killed at %d messages, of which %d left the image in the trash, and %d in both", kills, inTrash, inBoth)
	if kills < 20 || inTrash < 3 || inBoth < 1 {
		t.Errorf("too few kills to interrupt each step")
	}
}

// keepThroughKill kills a process at message n while it deletes an image that must be kept. It
// reports whether the process was killed, and where the image was then.
func (c *crashes) keepThroughKill(t *testing.T, name string, n int) (killed, inTrash, inBoth bool) {
	t.Helper()
	const keep = time.Hour
	spec := c.specAt(name, n)
	made, err := c.images.Ensure(t.Context(), c.cluster, spec)
	if err != nil {
		t.Fatal(err)
	}
	c.ceph.Write(t, spec.ImageRef)
	killed = c.run(t, n, victim{Spec: spec, Do: moveToTrash, Keep: keep})
	inBoth = c.deleteAgain(t, spec, 2*keep)
	inTrash = c.restore(t, spec)
	img, err := c.images.Get(t.Context(), c.cluster, spec.ImageRef)
	if err != nil || img.Size != made.Size || img.Owner() != spec.Owner {
		t.Errorf("after a crash at message %d: %+v: %v", n, img, err)
	}
	if data := c.ceph.Run(t, "rbd", "diff", spec.String()); data == "" {
		t.Errorf("after a crash at message %d the image is empty", n)
	}
	return killed, inTrash, inBoth
}

// deleteAgain deletes an image that is in the trash and still has its name. It reports whether
// the image was in both.
func (c *crashes) deleteAgain(t *testing.T, spec rbdutil.ImageSpec, keep time.Duration) bool {
	t.Helper()
	trashed, err := c.images.ListTrash(t.Context(), c.cluster, c.pool)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.images.Get(t.Context(), c.cluster, spec.ImageRef); err != nil || len(trashed) == 0 {
		return false
	}
	start := time.Now()
	eventually(t, "delete "+spec.Name+" again", func(ctx context.Context) error {
		return c.images.Delete(ctx, c.cluster, spec.ImageRef, preconditionOf(spec), keep)
	})
	trashed, err = c.images.ListTrash(t.Context(), c.cluster, c.pool)
	if err != nil || len(trashed) != 1 || trashed[0].KeepUntil.Before(start.Add(keep-time.Second)) {
		t.Errorf("deleted again at %s, entries %+v: %v", start, trashed, err)
	}
	return true
}

// restore restores an image if it is in the trash, and reports whether it was there.
func (c *crashes) restore(t *testing.T, spec rbdutil.ImageSpec) bool {
	t.Helper()
	trashed, err := c.images.ListTrash(t.Context(), c.cluster, c.pool)
	if err != nil {
		t.Fatal(err)
	}
	if len(trashed) == 0 {
		return false
	}
	if err := c.images.RemoveFromTrash(t.Context(), c.cluster, c.pool, trashed[0], spec.Owner); !errors.Is(err, rbdutil.ErrNotExpired) {
		t.Errorf("remove %+v: %v, want %v", trashed[0], err, rbdutil.ErrNotExpired)
	}
	eventually(t, "restore "+spec.Name, func(ctx context.Context) error {
		return c.images.Restore(ctx, c.cluster, c.pool, trashed[0])
	})
	return true
}
