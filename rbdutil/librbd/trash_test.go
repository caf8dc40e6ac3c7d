//go:build ceph

package librbd_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/google/go-cmp/cmp"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest/cephcli"
)

// trashTest is a pool with an image.
type trashTest struct {
	ceph    cephcli.Admin
	cluster rbdutil.Cluster
	store   *librbd.Store
	ref     rbdutil.ImageRef
}

func newTrashTest(t *testing.T, pool string, features rbdutil.Features) trashTest {
	t.Helper()
	ceph, cluster := newClusterWith(t, pool)
	s := trashTest{ceph, cluster, newStore(t, librbd.Options{}), rbdutil.ImageRef{Pool: pool, Name: "one"}}
	if err := s.store.Create(t.Context(), cluster, s.ref, rbdutil.Layout{Features: features}); err != nil {
		t.Fatal(err)
	}
	record := rbdutil.Record{Owner: rbdutil.Owner{ClaimUID: "1e7f"}, Size: 64 * rbdutil.MiB}
	if err := s.store.Update(t.Context(), cluster, rbdutil.Image{ImageRef: s.ref}, &record, 64*rbdutil.MiB); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s trashTest) see(t *testing.T) rbdutil.Image {
	t.Helper()
	img, err := s.store.Get(t.Context(), s.cluster, s.ref)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (s trashTest) moveToTrash(t *testing.T, c rbdutil.Cluster) error {
	t.Helper()
	img := s.see(t)
	maker := rbdutil.Owner{Provisioner: "ceph.com/rbd", ClusterID: "here"}
	return s.store.MoveToTrash(t.Context(), c, img, img.Record.WithDeletion(maker, rbdutil.Deletion{Time: time.Now()}), 0)
}

// TestAFailedMoveLeavesTheRecord has a user who may write to images, but not to the trash.
func TestAFailedMoveLeavesTheRecord(t *testing.T) {
	t.Parallel()
	s := newTrashTest(t, "failed-move", rbdutil.Layering)
	limited := s.cluster
	limited.User = "no-trash"
	s.ceph.Run(t, "ceph", "auth", "get-or-create", "client.no-trash", "mon", "profile rbd",
		"osd", "allow r pool="+s.ref.Pool+", allow rwx pool="+s.ref.Pool+" object_prefix rbd_header.")
	limited.Key = rbdutil.NewKey(s.ceph.Run(t, "ceph", "auth", "get-key", "client.no-trash"))
	for _, text := range []string{s.see(t).Record.Encode(), "not JSON"} {
		s.ceph.SetRecord(t, s.ref, text)
		if err := s.moveToTrash(t, limited); !errors.Is(err, rbdutil.ErrAccessDenied) {
			t.Fatalf("error %v, want %v", err, rbdutil.ErrAccessDenied)
		}
		if got := s.ceph.Run(t, "rbd", "image-meta", "get", s.ref.String(), rbdutil.MetaRecord); got != text {
			t.Errorf("the record is %s, want %s", got, text)
		}
	}
	s.ceph.Run(t, "rbd", "image-meta", "remove", s.ref.String(), rbdutil.MetaRecord)
	if err := s.moveToTrash(t, limited); !errors.Is(err, rbdutil.ErrAccessDenied) {
		t.Fatalf("error %v, want %v", err, rbdutil.ErrAccessDenied)
	}
	if got := s.ceph.Run(t, "rbd", "image-meta", "list", s.ref.String()); strings.Contains(got, rbdutil.MetaRecord) {
		t.Errorf("the image has the record %s, want none", got)
	}
}

// TestAnImageThatThisClientHasOpenIsNotMoved: another operation of this client writes to it.
func TestAnImageThatThisClientHasOpenIsNotMoved(t *testing.T) {
	t.Parallel()
	s := newTrashTest(t, "open-elsewhere", rbdutil.Layering)
	before := s.see(t)
	type result struct {
		snapshot, move error
	}
	// A snapshot takes the monitors up to a second, and does not lock the image.
	for attempt := range 20 {
		taken := make(chan error, 1)
		go func() {
			taken <- s.store.CreateSnapshot(context.Background(), s.cluster, s.ref, fmt.Sprint("rbd-provisioner-for-", attempt))
		}()
		time.Sleep(20 * time.Millisecond)
		got := result{move: s.store.MoveToTrash(t.Context(), s.cluster, before, before.Record, 0)}
		got.snapshot = <-taken
		if errors.Is(got.move, rbdutil.ErrInProgress) {
			if now := s.see(t); now.Record.Encode() != before.Record.Encode() || got.snapshot != nil {
				t.Errorf("record %s, snapshot: %v", now.Record.Encode(), got.snapshot)
			}
			return
		}
		if got.move != nil {
			t.Fatal(got.move)
		}
		t.Log("the snapshot was not begun, or was over already")
		list, err := s.store.ListTrash(t.Context(), s.cluster, s.ref.Pool)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		if err := s.store.Restore(t.Context(), s.cluster, s.ref.Pool, list[0]); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("no move ran during the creation of a snapshot")
}

// TestAMountedImageCanBeExpanded: the lock of the feature exclusive-lock, which a writing client
// has, does not count as a lock.
func TestAMountedImageCanBeExpanded(t *testing.T) {
	t.Parallel()
	s := newTrashTest(t, "mounted", rbdutil.Layering|rbdutil.ExclusiveLock)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	writer := exec.CommandContext(ctx, "rbd", "--conf", s.ceph.Conf(), "bench", "--io-type", "write",
		"--io-size", "4K", "--io-threads", "1", "--io-total", "100G", s.ref.String())
	out, err := writer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = writer.Wait() }()
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "SEC"); {
		continue // the client is opening the image
	}
	var locks []struct{ ID string }
	for deadline := time.Now().Add(20 * time.Second); len(locks) == 0 && time.Now().Before(deadline); {
		s.ceph.JSON(t, &locks, "rbd", "lock", "ls", s.ref.String())
	}
	if len(locks) != 1 || !strings.HasPrefix(locks[0].ID, "auto ") {
		t.Fatalf("locks %+v", locks)
	}
	img := s.see(t)
	if err := s.store.Update(t.Context(), s.cluster, img, nil, 2*img.Size); err != nil {
		t.Error(err)
	}
	if got := s.see(t); got.Size != 2*img.Size || len(got.Watchers) == 0 {
		t.Errorf("image %+v", got)
	}
	if err := s.moveToTrash(t, s.cluster); !errors.Is(err, rbdutil.ErrImageInUse) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrImageInUse)
	}
}

// TestATrashOfAnyLength has more entries than go-ceph lists.
func TestATrashOfAnyLength(t *testing.T) {
	t.Parallel()
	const entries = 10_500
	s := newTrashTest(t, "long-trash", rbdutil.Layering)
	s.ceph.TrashByHand(t, s.ref)
	pool := s.ioctx(t)
	const object, prefix = "rbd_trash", "id_"
	present, err := pool.GetAllOmapValues(object, "", prefix, 10)
	if err != nil || len(present) != 1 {
		t.Fatalf("%d entries: %v", len(present), err)
	}
	for _, value := range present {
		more := map[string][]byte{}
		for n := range entries {
			more[fmt.Sprintf("%s%012d", prefix, n)] = value
		}
		if err := pool.SetOmap(object, more); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rbd.GetTrashList(pool); err == nil {
		t.Error("go-ceph lists all entries now: use its function")
	}
	list, err := s.store.ListTrash(t.Context(), s.cluster, s.ref.Pool)
	if err != nil || len(list) != entries+1 {
		t.Fatalf("%d entries, want %d: %v", len(list), entries+1, err)
	}
	want := list[0]
	for n := range list {
		list[n].ID = want.ID
		if diff := cmp.Diff(want, list[n]); diff != "" {
			t.Fatalf("entry %d (-want +got):\n%s", n, diff)
		}
	}
}

// TestAnImageWhoseClonesCannotBeListed has a clone that does not exist, as after an interrupted
// removal, and a snapshot that is not ours, for which the clones are listed.
func TestAnImageWhoseClonesCannotBeListed(t *testing.T) {
	t.Parallel()
	s := newTrashTest(t, "lost-clone", rbdutil.Layering)
	if err := s.store.CreateSnapshot(t.Context(), s.cluster, s.ref, "base"); err != nil {
		t.Fatal(err)
	}
	clone := rbdutil.ImageRef{Pool: s.ref.Pool, Name: "clone"}
	if err := s.store.Clone(t.Context(), s.cluster, s.ref, "base", clone, rbdutil.Layout{Features: rbdutil.Layering}); err != nil {
		t.Fatal(err)
	}
	// The pool lists clones by parent, as a number and that many strings with their lengths.
	pool := s.ioctx(t)
	const object, lost = "rbd_children", "1e7f1e7f1e7f"
	children, err := pool.GetAllOmapValues(object, "", "", 10)
	if err != nil || len(children) != 1 {
		t.Fatalf("%d entries: %v", len(children), err)
	}
	for parent, value := range children {
		binary.LittleEndian.PutUint32(value, 2)
		value = append(binary.LittleEndian.AppendUint32(value, uint32(len(lost))), lost...)
		if err := pool.SetOmap(object, map[string][]byte{parent: value}); err != nil {
			t.Fatal(err)
		}
	}
	if img := s.see(t); len(img.Snapshots) != 1 || len(img.Clones) != 0 {
		t.Errorf("image %+v", img)
	}
	if err := s.moveToTrash(t, s.cluster); !errors.Is(err, rbdutil.ErrHasSnapshots) {
		t.Errorf("error %v, want %v", err, rbdutil.ErrHasSnapshots)
	}
	img := s.see(t)
	if err := s.store.Update(t.Context(), s.cluster, img, nil, 2*img.Size); err != nil {
		t.Error(err)
	}
}

// ioctx opens the pool.
func (s trashTest) ioctx(t *testing.T) *rados.IOContext {
	t.Helper()
	conn, err := rados.NewConnWithUser(s.cluster.User)
	if err != nil {
		t.Fatal(err)
	}
	for option, value := range map[string]string{"mon_host": strings.Join(s.cluster.Monitors, ","), "key": s.cluster.Key.Reveal()} {
		if err := conn.SetConfigOption(option, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Shutdown)
	pool, err := conn.OpenIOContext(s.ref.Pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Destroy)
	return pool
}
