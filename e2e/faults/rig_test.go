//go:build e2e

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/e2e/lab"
)

const (
	// workers is the provisioner's --worker-threads. More claims at a time are served only if
	// no worker is blocked.
	workers = 8
	// timeout is the provisioner's --timeout. It is short, so that a fault of seconds exceeds
	// it.
	timeout = 4 * time.Second
)

// rig is a provisioner with claims, and a Ceph to break.
type rig struct {
	*framework.Env
	p    *framework.Process
	ceph *lab.Ceph
	// sick is the class whose Ceph fails.
	sick string
}

// newRig starts a provisioner with a class for the first Ceph.
func newRig(t *testing.T, flags ...string) *rig {
	t.Helper()
	l := openLab(t)
	r := &rig{Env: framework.NewForProcess(t), ceph: l.Ceph()}
	r.sick = r.Class(t, "sick")
	r.start(t, flags...)
	return r
}

func (r *rig) start(t *testing.T, flags ...string) {
	t.Helper()
	flags = append([]string{"--leader-election=false", fmt.Sprint("--worker-threads=", workers), fmt.Sprint("--timeout=", timeout)}, flags...)
	r.p = framework.Start(t, r.Env, flags...)
	r.Await(t, "the provisioner to be ready", framework.Timeout, func(ctx context.Context) error {
		status, body, err := r.p.TryGet(ctx, "/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d: %s", status, body)
		}
		return err
	})
	watchLiveness(t, r.p)
}

func openLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.Open(os.Getenv("RBD_LAB"), lab.Options{})
	if err != nil {
		t.Fatalf("RBD_LAB must name a lab: %v", err)
	}
	return l
}

// daemon returns one of a Ceph's daemons, with its current process.
func daemon(t *testing.T, ceph *lab.Ceph, name string) *lab.Daemon {
	t.Helper()
	d, err := ceph.Daemon(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// do fails the test if what fails.
func do(t *testing.T, what func() error) {
	t.Helper()
	if err := what(); err != nil {
		t.Fatal(err)
	}
}

// watchLiveness requires that the process is live until the test ends: a restart cannot help
// against failures of Ceph.
func watchLiveness(t *testing.T, p *framework.Process) {
	t.Helper()
	var done sync.WaitGroup
	done.Add(1)
	stop := make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		done.Wait()
	})
	go func() {
		defer done.Done()
		for {
			ctx, cancel := context.WithTimeout(context.Background(), framework.Timeout)
			status, body, err := p.TryGet(ctx, "/livez")
			cancel()
			if err != nil || status != http.StatusOK {
				t.Errorf("/livez: %d %q, %v", status, body, err)
			}
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
}

// awaitUnavailable waits until /readyz names the cluster.
func (r *rig) awaitUnavailable(t *testing.T, monitors []string) {
	t.Helper()
	r.awaitReadyz(t, "names "+strings.Join(monitors, ","), func(body string) bool { return listsUnavailable(body, monitors) })
}

// awaitAvailable waits until /readyz does not name the cluster any more.
func (r *rig) awaitAvailable(t *testing.T, monitors []string) {
	t.Helper()
	r.awaitReadyz(t, "does not name "+strings.Join(monitors, ","), func(body string) bool { return !listsUnavailable(body, monitors) })
}

func (r *rig) awaitReadyz(t *testing.T, what string, good func(body string) bool) {
	t.Helper()
	r.Await(t, "/readyz that "+what, framework.Timeout, func(ctx context.Context) error {
		status, body, err := r.p.TryGet(ctx, "/readyz")
		if err == nil && !good(body) {
			err = fmt.Errorf("%d %q", status, body)
		}
		return err
	})
}

// listsUnavailable reports whether the body has a failed check of the cluster.
func listsUnavailable(body string, monitors []string) bool {
	for _, line := range strings.Split(body, "\n") {
		if strings.HasPrefix(line, "[-]ceph ") && strings.Contains(line, strings.Join(monitors, ",")) {
			return true
		}
	}
	return false
}

// awaitIdle waits until no work is pending: every claim is bound, every deleted one is gone
// with its volume, and each image belongs to a claim.
func (r *rig) awaitIdle(t *testing.T) {
	t.Helper()
	var pgs laggyPGs
	r.Await(t, "one image for each claim, all bound", framework.VolumeTimeout, func(ctx context.Context) error {
		pgs.repair(ctx, t, r)
		ctx, cancel := context.WithTimeout(ctx, framework.Timeout/4) // requests to a laggy PG do not end
		defer cancel()
		return r.checkIdle(ctx)
	})
}

func (r *rig) checkIdle(ctx context.Context) error {
	claims, err := r.Claims(ctx)
	if err != nil {
		return err
	}
	var want []string
	for _, claim := range claims {
		if claim.Status.Phase != corev1.ClaimBound || claim.DeletionTimestamp != nil {
			return fmt.Errorf("claim %s is %s, deleted: %t", claim.Name, claim.Status.Phase, claim.DeletionTimestamp != nil)
		}
		want = append(want, r.ImageFor(&claim).Name)
	}
	return r.compare(ctx, want)
}

// laggyPGs works around a flaw of Ceph 16: after a lone OSD was cut off or paused, a PG can stay
// "laggy" for ever, and delay all requests. It recovers when the OSD peers again.
type laggyPGs struct{ checked, since time.Time }

func (l *laggyPGs) repair(ctx context.Context, t *testing.T, r *rig) {
	const interval, patience = 5 * time.Second, 20 * time.Second
	if time.Since(l.checked) < interval {
		return
	}
	l.checked = time.Now()
	out, err := r.Ceph.Try(ctx, "ceph", "pg", "ls", "laggy", "--format", "json")
	switch {
	case err != nil || !strings.Contains(string(out), "pg_stats"):
		l.since = time.Time{}
	case l.since.IsZero():
		l.since = time.Now()
	case time.Since(l.since) > patience:
		_, err := r.Ceph.Try(ctx, "ceph", "osd", "down", "0")
		t.Logf("a PG stayed laggy, made osd.0 peer again: %v", err)
		l.since = time.Time{}
	}
}

// compare returns an error if volumes and images differ from the wanted ones.
func (r *rig) compare(ctx context.Context, want []string) error {
	volumes, err := r.Volumes(ctx)
	if err != nil {
		return err
	}
	var named []string
	for _, volume := range volumes {
		named = append(named, volume.Spec.RBD.RBDImage)
	}
	out, err := r.Ceph.Try(ctx, "rbd", "ls", r.Pool, "--format", "json")
	if err != nil {
		return err
	}
	var images []string
	if err := json.Unmarshal(out, &images); err != nil {
		return err
	}
	for _, names := range [][]string{want, named, images} {
		slices.Sort(names)
	}
	if !slices.Equal(named, want) || !slices.Equal(images, want) {
		return fmt.Errorf("got volumes %q\nimages %q\nwant both %q", named, images, want)
	}
	return nil
}

// createClaims creates claims at once and waits until they are bound.
func (r *rig) createClaims(t *testing.T, class string, n int) {
	t.Helper()
	var claims []*corev1.PersistentVolumeClaim
	for i := range n {
		claims = append(claims, r.Claim(t, fmt.Sprintf("claim-%d", i), class))
	}
	for _, claim := range claims {
		r.AwaitBound(t, claim)
	}
}

// deleteAll deletes all claims and waits until their volumes and images are gone.
func (r *rig) deleteAll(t *testing.T) {
	t.Helper()
	r.deleteClaims(t)
	r.awaitIdle(t)
}

// deleteClaims deletes all claims, without a wait for their volumes.
func (r *rig) deleteClaims(t *testing.T) {
	t.Helper()
	err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Await(t, "all claims to be gone", framework.Timeout, func(ctx context.Context) error {
		claims, err := r.Claims(ctx)
		if err == nil && len(claims) > 0 {
			err = fmt.Errorf("%d are left", len(claims))
		}
		return err
	})
}
