//go:build ceph

package librbd_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sys/unix"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
)

// leaseFolder is the rbdutil.Clients of a victim. The file "client" has its client, and the file
// "taken" exists when another process leads.
type leaseFolder string

var errTaken = errors.New("another process leads")

// Register implements rbdutil.Clients. As with a lease, it fails or the next leader reads the
// client.
func (f leaseFolder) Register(_ context.Context, client rbdutil.Client) ([]rbdutil.Client, error) {
	text, err := json.Marshal(client)
	if err != nil {
		return nil, err
	}
	written := f.file("client.new")
	if err := os.WriteFile(written, text, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(written, f.file("client")); err != nil {
		return nil, err
	}
	if _, err := os.Stat(f.file("taken")); err == nil {
		return nil, errTaken
	}
	return nil, nil
}

// Fenced implements rbdutil.Clients.
func (leaseFolder) Fenced([]rbdutil.Client) {}

// Refused implements rbdutil.Clients.
func (leaseFolder) Refused(_ []rbdutil.Client, reason error) error { return reason }

// Closed implements rbdutil.Clients.
func (leaseFolder) Closed(rbdutil.Client, bool) {}

func (f leaseFolder) file(name string) string { return filepath.Join(string(f), name) }

// take ends the leadership of the victim, and returns its registered clients.
func (f leaseFolder) take() ([]rbdutil.Client, error) {
	if err := os.WriteFile(f.file("taken"), nil, 0o600); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(f.file("client"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	clients := make([]rbdutil.Client, 1)
	return clients, json.Unmarshal(text, &clients[0])
}

// pausedOperation is an operation in which a process is stopped.
type pausedOperation struct {
	name string
	// before are the operations that prepare the state for the victim.
	before []verb
	victim verb
	// successor is the operation of the next leader. If it cannot restore an image whose
	// removal has begun, it completes the removal.
	successor verb
	clone     bool
}

var pausedOperations = []pausedOperation{
	{name: "make", victim: makeImage, successor: makeImage},
	{name: "clone", victim: makeImage, successor: makeImage, clone: true},
	{name: "grow", before: []verb{makeImage}, victim: grow, successor: grow},
	{name: "move", before: []verb{makeImage}, victim: moveToTrash, successor: moveToTrash},
	{name: "rescue", before: []verb{makeImage}, victim: moveToTrash, successor: restore},
	{name: "remove", before: []verb{makeImage, moveToTrash}, victim: remove, successor: remove},
	{name: "late-rescue", before: []verb{makeImage, moveToTrash}, victim: remove, successor: restore},
	{name: "restore", before: []verb{makeImage, moveToTrash}, victim: restore, successor: restore},
}

// pauses is a pool in which processes are stopped.
type pauses struct {
	*cloneCrashes
	pods  *rados.Conn // of client.admin
	fence bool        // whether the next leader fences the previous one

	stopped, fenced, unregistered, finished, lost atomic.Int32
}

func newPausesIn(t *testing.T, pool string) *pauses {
	t.Helper()
	p := &pauses{cloneCrashes: &cloneCrashes{newCrashesIn(t, pool)}, fence: true}
	conn, err := rados.NewConn()
	if err == nil {
		err = conn.ReadConfigFile(p.ceph.Conf())
	}
	if err == nil {
		err = conn.Connect()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Shutdown)
	p.pods = conn
	return p
}

// pause is one process that is stopped, and the operations during that.
type pause struct {
	*pauses
	victim
	op  pausedOperation
	n   int // the message
	cmd *exec.Cmd
	out strings.Builder
	// successor is nil until another process leads.
	successor *rbdutil.Images
	// registered: the victim had registered its client when it was stopped.
	registered bool
	// done: its operation was complete then.
	done bool
	sums map[string]string // of the images that must not change, by name
}

// failf reports a failure, which is expected without fencing.
func (p *pause) failf(t *testing.T, format string, args ...any) {
	t.Helper()
	if p.fence {
		t.Errorf("%s, stopped at message %d: %s", p.op.name, p.n, fmt.Sprintf(format, args...))
	}
}

// lostf reports the loss of an image that a pod uses, or of its data.
func (p *pause) lostf(t *testing.T, format string, args ...any) {
	t.Helper()
	p.lost.Add(1)
	p.failf(t, format, args...)
	if !p.fence {
		t.Logf("%s, stopped at message %d: lost as expected: %s", p.op.name, p.n, fmt.Sprintf(format, args...))
	}
}

// try stops a process at message n, lets another one lead, and continues the first. It reports
// whether the process was stopped: it may have ended before.
func (p *pauses) try(t *testing.T, op pausedOperation, n int) (stopped bool) {
	t.Helper()
	v := p.prepare(t, op, n)
	if stopped = v.start(t, fmt.Sprintf("STOP_AT_MESSAGE=%d", n)); stopped {
		p.stopped.Add(1)
		v.takeOver(t)
	} else {
		v.awaitUnstopped(t)
	}
	if p.fence {
		v.cleanUp(t)
	}
	return stopped
}

// count returns the number of messages of the operation.
func (p *pauses) count(t *testing.T, op pausedOperation) int {
	t.Helper()
	v, file := p.prepare(t, op, 0), filepath.Join(t.TempDir(), "messages")
	v.start(t, "COUNT_MESSAGES="+file)
	v.awaitUnstopped(t)
	v.cleanUp(t)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Size())
}

// prepare creates the state for the victim.
func (p *pauses) prepare(t *testing.T, op pausedOperation, n int) *pause {
	t.Helper()
	const first = 10000 // so no name is a prefix of another
	v := &pause{pauses: p, op: op, n: n, sums: map[string]string{}}
	v.victim = victim{Spec: p.specAt(op.name, first+n), Do: op.victim, Lease: t.TempDir()}
	if op.clone {
		v.Spec = p.cloneAt(op.name, first+n)
		source := p.sourceOf(op.name, first+n)
		p.ensure(t, source)
		v.write(t, source.ImageRef, "source")
		v.sums[v.Spec.Name] = v.sums[source.Name]
	}
	for _, do := range op.before {
		if err := v.run(t.Context(), p.images, p.cluster, do); err != nil {
			v.failf(t, "%s before: %v", do, err)
		}
		if do == makeImage {
			v.write(t, v.Spec.ImageRef, "before")
		}
	}
	return v
}

// start starts the victim, waits until it has stopped or ended, and reports which of both.
func (p *pause) start(t *testing.T, env string) (stopped bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // kills it
	t.Cleanup(cancel)
	p.cmd = p.command(ctx, t, p.victim, env)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		var info unix.Siginfo
		// The process remains for cmd.Wait.
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			p.failf(t, "wait for it to stop: %v", err)
		}
		const stoppedCode = 5 // CLD_STOPPED: all of its threads
		return err == nil && info.Code == stoppedCode
	}
}

func (p *pause) awaitUnstopped(t *testing.T) {
	t.Helper()
	if err := p.cmd.Wait(); err != nil {
		p.failf(t, "it was not stopped, and ended with %v: %s", err, p.out.String())
	}
}

// takeOver runs the next leader while the victim is stopped, and then continues the victim.
func (p *pause) takeOver(t *testing.T) {
	t.Helper()
	stale, err := leaseFolder(p.Lease).take()
	if err != nil {
		t.Fatal(err)
	}
	p.registered = len(stale) > 0
	clients := &recordedClients{}
	if p.fence {
		clients.stale = stale
	}
	store := librbd.New(librbd.Options{Timeout: 30 * time.Second, IdleTimeout: time.Minute, Clients: clients, Blocklisted: func(err error) {
		p.failf(t, "the next leader is blocklisted: %v", err)
	}})
	defer store.Close()
	p.successor = rbdutil.NewImages(store)
	// This connects, and therefore fences.
	if p.done, err = p.isDone(t.Context()); err != nil {
		p.failf(t, "read the image: %v", err)
	}
	if p.done && !p.registered {
		p.failf(t, "it has done its work without a registered client")
	}
	there, err := p.succeed(t.Context())
	if err != nil {
		p.failf(t, "the next leader: %v", err)
	}
	var published rbdutil.Image
	if there {
		published = p.publish(t)
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.awaitEnd(t)
	if err == nil {
		p.check(t, there, published)
	}
}

// isDone reports whether the victim's operation is complete.
func (p *pause) isDone(ctx context.Context) (bool, error) {
	if p.Do == remove {
		trashed, err := p.successor.ListTrash(ctx, p.cluster, p.pool)
		return !slices.ContainsFunc(trashed, func(img rbdutil.TrashedImage) bool { return img.Name == p.Spec.Name }), err
	}
	img, err := p.successor.Get(ctx, p.cluster, p.Spec.ImageRef)
	missing := errors.Is(err, rbdutil.ErrImageNotFound)
	switch {
	case err != nil && !missing:
		return false, err
	case p.Do == moveToTrash:
		return missing, nil
	case p.Do == grow:
		return img.Size == 2*p.Spec.Size, nil
	default:
		return img.Size == p.Spec.Size && img.Owner() == p.Spec.Owner, nil
	}
}

// succeed runs the operation of the next leader, and reports whether the image must exist
// then.
func (p *pause) succeed(ctx context.Context) (there bool, err error) {
	do := p.op.successor
	if do == restore && p.Do == remove {
		if !p.done && p.run(ctx, p.successor, p.cluster, restore) == nil {
			return true, nil
		}
		do = remove
	}
	if err := p.must(ctx, do); err != nil {
		return false, err
	}
	if do != moveToTrash && do != remove {
		return true, nil
	}
	if p.n%2 == 0 {
		return false, nil
	}
	// The name is used again.
	delete(p.sums, p.Spec.Name)
	return true, p.must(ctx, makeImage)
}

// must retries an operation that may have to wait until Ceph has completed the victim's.
func (p *pause) must(ctx context.Context, do verb) error {
	patience := time.Minute
	if !p.fence {
		patience = 3 * time.Second // the victim may be a watcher for half a minute
	}
	return retry(patience, func(context.Context) error {
		err := p.run(ctx, p.successor, p.cluster, do)
		if errors.Is(err, rbdutil.ErrImageExists) {
			// A partial image has the name until it is removed from the trash.
			_ = p.run(ctx, p.successor, p.cluster, remove)
		}
		return err
	})
}

// publish checks the data of the image, and writes to it as a pod. It returns the image, which
// must not change any more.
func (p *pause) publish(t *testing.T) rbdutil.Image {
	t.Helper()
	ref := p.Spec.ImageRef
	if want := p.sums[ref.Name]; want != "" && p.sum(t, ref, p.Spec.Size) != want {
		p.lostf(t, "the image does not have the data of before")
	}
	p.write(t, ref, "pod")
	img, err := p.successor.Get(t.Context(), p.cluster, ref)
	if err != nil {
		p.lostf(t, "%v", err)
	}
	return img
}

// awaitEnd waits until the victim has ended. It must fail, unless its operation was complete
// when the next leader took over.
func (p *pause) awaitEnd(t *testing.T) {
	t.Helper()
	err := p.cmd.Wait()
	out := p.out.String()
	switch {
	case err == nil && p.done:
		p.finished.Add(1)
	case err == nil:
		p.failf(t, "it ended well")
	case strings.Contains(out, rbdutil.ErrBlocklisted.Error()) && p.registered && p.fence:
		p.fenced.Add(1)
	case strings.Contains(out, errTaken.Error()): // it may have written the file already
		p.unregistered.Add(1)
	default:
		p.failf(t, "its client was registered: %t; it ended with %v: %s", p.registered, err, out)
	}
}

// check checks that the state is as the next leader and the pod left it.
func (p *pause) check(t *testing.T, there bool, published rbdutil.Image) {
	t.Helper()
	for name, want := range p.sums {
		if name == p.Spec.Name && !there {
			continue
		}
		if p.sum(t, rbdutil.ImageRef{Pool: p.pool, Name: name}, 0) != want {
			p.lostf(t, "image %s has other data", name)
		}
	}
	img, err := p.successor.Get(t.Context(), p.cluster, p.Spec.ImageRef)
	switch {
	case !there && errors.Is(err, rbdutil.ErrImageNotFound):
	case !there:
		p.failf(t, "there is an image again: %+v, %v", img, err)
	case err != nil || !img.Same(published) || fmt.Sprint(img.Parent) != fmt.Sprint(published.Parent):
		p.lostf(t, "there is another image: %+v, %v, it was %+v", img, err, published)
	}
}

func (p *pause) cleanUp(t *testing.T) {
	t.Helper()
	specs := []rbdutil.ImageSpec{p.Spec}
	if p.op.clone {
		specs = append(specs, p.sourceOf(p.op.name, 10000+p.n))
	}
	for _, spec := range specs {
		eventually(t, "delete "+spec.Name, func(ctx context.Context) error {
			return victim{Spec: spec}.run(ctx, p.images, p.cluster, deleteImage)
		})
	}
}

// write writes unique data as a pod, and stores the checksum of the image.
func (p *pause) write(t *testing.T, ref rbdutil.ImageRef, text string) {
	t.Helper()
	err := p.onImage(ref, rbd.OpenImage, func(image *rbd.Image) error {
		_, err := image.WriteAt([]byte(text+" "+ref.String()), 4096)
		return err
	})
	if err != nil {
		p.lostf(t, "write to %s: %v", ref, err)
	}
	p.sums[ref.Name] = p.sum(t, ref, 0)
}

// sum returns the checksum of the first bytes of an image, or of all if size is 0.
func (p *pause) sum(t *testing.T, ref rbdutil.ImageRef, size uint64) (sum string) {
	t.Helper()
	err := p.onImage(ref, rbd.OpenImageReadOnly, func(image *rbd.Image) (err error) {
		if size == 0 {
			size, err = image.GetSize()
		}
		data := make([]byte, size)
		if err == nil {
			_, err = image.ReadAt(data, 0)
		}
		sum = fmt.Sprintf("%x", sha256.Sum256(data))
		return err
	})
	if err != nil {
		p.lostf(t, "read %s: %v", ref, err)
	}
	return sum
}

type openFunc func(pool *rados.IOContext, name, snapshot string) (*rbd.Image, error)

func (p *pauses) onImage(ref rbdutil.ImageRef, open openFunc, do func(*rbd.Image) error) error {
	pool, err := p.pods.OpenIOContext(ref.Pool)
	if err != nil {
		return err
	}
	defer pool.Destroy()
	image, err := open(pool, ref.Name, rbd.NoSnapshot)
	if err != nil {
		return err
	}
	return errors.Join(do(image), image.Close())
}

// TestPausedAtEveryMessage stops a leading process at messages that it sends to Ceph. Another
// one takes over and completes the operation, and a pod writes to the image. Then the first
// process continues, and must not change anything.
//
// PAUSES is the number of messages of each operation, 0 for all; PAUSE_SEED repeats their
// choice.
func TestPausedAtEveryMessage(t *testing.T) {
	t.Parallel()
	p := newPausesIn(t, "pauses")
	if points := fromEnv(t, "PAUSES", 12); points > 0 {
		p.tryEvenly(t, points)
	} else {
		for _, op := range pausedOperations {
			t.Logf("%s: stopped at %d messages", op.name, someAtATime(func(n int) bool { return p.try(t, op, n) }))
		}
	}
	t.Logf("of %d processes that were stopped, %d were fenced, %d had not registered, %d had finished",
		p.stopped.Load(), p.fenced.Load(), p.unregistered.Load(), p.finished.Load())
	if p.fenced.Load() == 0 || p.fenced.Load() < p.stopped.Load()/3 {
		t.Error("too few stops to interrupt each step")
	}
	p.wantEmpty(t)
}

// tryEvenly tries a number of messages of each operation, evenly distributed.
func (p *pauses) tryEvenly(t *testing.T, points int) {
	t.Helper()
	seed := fromEnv(t, "PAUSE_SEED", int(time.Now().UnixNano()))
	t.Logf("PAUSE_SEED=%d", seed)
	lot := rand.New(rand.NewPCG(uint64(seed), 0))
	messages := make([]int, len(pausedOperations))
	offsets := make([]float64, len(pausedOperations))
	for i := range pausedOperations {
		offsets[i] = lot.Float64()
	}
	someAtATime(func(n int) bool {
		if n <= len(messages) {
			messages[n-1] = p.count(t, pausedOperations[n-1])
		}
		return n <= len(messages)
	})
	someAtATime(func(n int) bool {
		i, point := (n-1)%len(messages), (n-1)/len(messages)
		if point < points {
			p.try(t, pausedOperations[i], 1+int((float64(point)+offsets[i])*float64(messages[i])/float64(points)))
		}
		return point < points
	})
	for i, op := range pausedOperations {
		t.Logf("%s: %d messages", op.name, messages[i])
	}
}

func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is not a number", name, text)
	}
	return n
}

// TestWithoutFencingAPauseLosesAClone shows that TestPausedAtEveryMessage can fail: without
// fencing, a pause at some message of a clone's creation loses the data of the pod.
func TestWithoutFencingAPauseLosesAClone(t *testing.T) {
	t.Parallel()
	p := newPausesIn(t, "unfenced-pauses")
	p.fence = false
	i := slices.IndexFunc(pausedOperations, func(op pausedOperation) bool { return op.clone })
	messages := p.count(t, pausedOperations[i])
	first := messages * 55 / 100 // Ceph creates the clone after about this message
	tried := someAtATime(func(n int) bool {
		return first+n <= messages && p.lost.Load() == 0 && p.try(t, pausedOperations[i], first+n)
	})
	t.Logf("stopped from message %d to %d of %d", first+1, first+tried, messages)
	if p.lost.Load() == 0 {
		t.Error("no pause lost data")
	}
}
