//go:build e2e

package controller

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// shortLease are the flags of a lease that expires soon, though not while a process on a busy
// machine renews it.
var shortLease = []string{
	"--leader-election-lease-duration=6s", "--leader-election-renew-deadline=4s", "--leader-election-retry-period=200ms",
}

// requestPause is a pause of a process at one of its requests to the API server.
type requestPause struct {
	process   *framework.Process
	stopped   chan struct{} // closed when the process is stopped
	goOn      func()
	resume    chan struct{} // closed by goOn
	delivered chan struct{} // closed after the response
}

// pauseAt makes the gate stop the process at its request n, without counting requests for the
// lease. The API server receives the request after the pause or, if answered is set, before it.
func (g *requestGate) pauseAt(t *testing.T, p *framework.Process, n int, answered bool) *requestPause {
	t.Helper()
	pause := &requestPause{process: p, stopped: make(chan struct{}), resume: make(chan struct{}), delivered: make(chan struct{})}
	pause.goOn = sync.OnceFunc(func() { close(pause.resume) })
	t.Cleanup(pause.goOn)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count, g.answered, g.pausing = 0, answered, pause
	g.hits = func(r *http.Request, _ int) bool {
		if strings.Contains(r.URL.Path, "/leases") {
			g.count--
		}
		hit := g.count == n
		if hit {
			g.hits = nil
		}
		return hit
	}
	return pause
}

// disarm stops the count and returns the number of requests.
func (g *requestGate) disarm() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hits = nil
	return g.count
}

// serve handles the request at which the process is paused.
func (p *requestPause) serve(w http.ResponseWriter, r *http.Request, forward http.Handler, answered bool) {
	defer close(p.delivered)
	if r.URL.Query().Has("watch") {
		p.wait()
		forward.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	// The process may exit before the request is sent.
	r = r.WithContext(context.WithoutCancel(r.Context()))
	if !answered {
		p.wait()
	}
	forward.ServeHTTP(answer, r)
	if answered {
		p.wait()
	}
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (p *requestPause) wait() {
	_ = syscall.Kill(p.process.PID(), syscall.SIGSTOP)
	close(p.stopped)
	<-p.resume
}

// TestPausedAtEveryRequest stops a leader at requests to the API server while a volume and its
// clone are created, expanded and deleted. Another leader takes over, and data is written. Then
// the first one resumes. It must exit, and no data may be lost or left.
//
// PAUSES sets the number of requests, 0 for all of them; PAUSE_SEED repeats the choice.
func TestPausedAtEveryRequest(t *testing.T) {
	t.Parallel()
	points := lifeRequests
	if os.Getenv("PAUSES") != "0" {
		points = fromEnv(t, "PAUSES", 5)
	}
	seed := fromEnv(t, "PAUSE_SEED", int(time.Now().UnixNano()))
	t.Logf("PAUSE_SEED=%d", seed)
	offset := rand.New(rand.NewPCG(uint64(seed), 0)).Float64()
	for i := range points {
		n := 1 + int((float64(i)+offset)*lifeRequests/float64(points))
		for _, answered := range []bool{false, true} {
			if points < lifeRequests && answered != (i%2 == 0) {
				continue
			}
			t.Run(fmt.Sprintf("%d-%t", n, answered), func(t *testing.T) {
				t.Parallel()
				(&pausedLife{n: n, answered: answered}).run(t)
			})
		}
	}
}

// lifeRequests is the approximate number of requests, without those for the lease.
const lifeRequests = 27

// pausedLife is the test of one pause: the life cycle of a claim and its clone.
type pausedLife struct {
	*framework.Env
	n        int
	answered bool

	gate           *requestGate
	pause          *requestPause
	first, standby *framework.Process
	sums           map[rbdutil.ImageRef]string
	over           bool // the first leader has exited
}

const lifeSize = 32 << 20

func (l *pausedLife) run(t *testing.T) {
	l.gate = newRequestGate(t) // it is closed after the Env
	l.Env, l.sums = newEnv(t), map[rbdutil.ImageRef]string{}
	class := l.Class(t, "paused", framework.Expandable)
	l.first = framework.Start(t, l.Env, append(shortLease, "--kubeconfig="+l.gate.kubeconfig)...)
	awaitHolder(t, l.Env)
	l.first.AwaitLog(t, l.Env, "Started provisioner controller")
	l.standby = framework.Start(t, l.Env, shortLease...)
	l.standby.AwaitLog(t, l.Env, "Started waiting for the lease")
	l.pause = l.gate.pauseAt(t, l.first, l.n, l.answered)

	claim := l.Claim(t, "claim", class, framework.Block, framework.Size("32Mi"))
	image := l.ImageFor(claim)
	volume := l.AwaitBound(t, claim)
	l.Ceph.Write(t, image)
	l.sums[image] = sumOf(t, l.Env, image, lifeSize)
	l.step(t, "made")

	l.RequestSize(t, claim.Name, "64Mi")
	l.AwaitSize(t, claim.Name, "64Mi", framework.Timeout)
	l.step(t, "grown")

	clone := l.Claim(t, "clone", class, framework.Block, framework.CloneOf(claim.Name), framework.Size("64Mi"))
	cloned := l.AwaitBound(t, clone)
	l.sums[l.ImageFor(clone)] = l.sums[image]
	l.step(t, "cloned")

	l.DeleteClaim(t, clone.Name)
	l.AwaitVolumeGone(t, cloned)
	delete(l.sums, l.ImageFor(clone))
	l.step(t, "the clone deleted")

	l.DeleteClaim(t, claim.Name)
	l.AwaitVolumeGone(t, volume)
	delete(l.sums, image)
	requests := l.gate.disarm()
	l.step(t, "deleted")
	l.Await(t, "all objects to be deleted", framework.Timeout, func(ctx context.Context) error { return checkNothingLeft(ctx, l.Env) })
	if l.over {
		return
	}
	t.Logf("the leader was not paused: there were only %d requests", requests)
	if l.n <= lifeRequests/2 {
		t.Errorf("request %d was not sent", l.n)
	}
}

// step requires that no data was lost, and resumes the leader if it is paused.
func (l *pausedLife) step(t *testing.T, step string) {
	t.Helper()
	l.wantAll(t, step)
	select {
	case <-l.pause.stopped:
	default:
		return
	}
	if l.over {
		return
	}
	l.over = true
	t.Logf("paused at request %d (%s), answered before the pause: %t; resumed after step: %s", l.n, l.gate.last(), l.answered, step)
	l.standby.AwaitLog(t, l.Env, `"Started leading"`)
	for image := range l.sums {
		l.Ceph.Run(t, "rbd", "bench", "--io-type", "write", "--io-size", "8K", "--io-total", "8K", image.String())
		l.sums[image] = sumOf(t, l.Env, image, lifeSize)
	}
	l.first.Resume(t)
	l.pause.goOn()
	if code := l.first.AwaitExit(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	<-l.pause.delivered
	l.wantAll(t, step)
}

// wantAll requires exactly the images, with their data.
func (l *pausedLife) wantAll(t *testing.T, step string) {
	t.Helper()
	want := []string{}
	for image, sum := range l.sums {
		want = append(want, image.Name)
		if sumOf(t, l.Env, image, lifeSize) != sum {
			t.Errorf("%s: image %s has other data", step, image)
		}
	}
	slices.Sort(want)
	got := l.Ceph.Images(t, l.Pool)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: images (-want +got):\n%s", step, diff)
	}
}

// TestALeaderLosesTheAPIServerForAWhile lets the API server fail for the leader only, while
// claims are created and deleted. It recovers around the time at which the leader must have
// exited. The lease must never be released during work. TestALeaderThatIsCutOffIsReplaced has
// an API server that does not recover.
func TestALeaderLosesTheAPIServerForAWhile(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(api *framework.Proxy, leader *process){
		"slow": func(api *framework.Proxy, leader *process) {
			api.Delay(time.Second) // longer than the timeout of a request for the lease
			leader.Wait()
		},
		"back-before-the-deadline": func(api *framework.Proxy, _ *process) { hangFor(api, 3500*time.Millisecond) },
		"back-at-the-deadline":     func(api *framework.Proxy, _ *process) { hangFor(api, 4*time.Second) },
		"back-after-the-deadline":  func(api *framework.Proxy, _ *process) { hangFor(api, 5*time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, api := newProxiedEnv(t)
			class := e.Class(t, "busy")
			flags := append(slices.Clone(shortLease), "--worker-threads=1")
			leader := start(t, e, append(flags, "--kubeconfig="+framework.ProxiedKubeconfig(t, api))...)
			first := awaitHolder(t, e)
			gone := e.AwaitBound(t, e.Claim(t, "gone", class))
			standby := start(t, e, flags...)
			standby.AwaitLog(t, e, "Started waiting for the lease")
			holders := watchHolders(t, e)
			claims := createClaims(t, e, class, fewClaims)
			awaitImages(t, e, 3)
			e.DeleteClaim(t, "gone")
			wantBusy(t, e, fewClaims)
			clients := cephClients(t, e)
			fail(api, leader)
			api.Restore(t)
			e.AwaitVolumeGone(t, gone)
			wantBoundOnce(t, e, claims)
			got := holders()
			if slices.Contains(got, "") || got[0] != first || len(got) > 2 {
				t.Errorf("the lease was held by %q", got)
			}
			if len(got) == 1 {
				t.Log("the leader continued to lead")
				return
			}
			if code := leader.AwaitExit(t); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			wantFenced(t, e, standby, clients)
		})
	}
}

// hangFor makes the API server hang for a time: the test depends on the time of its recovery.
func hangFor(api *framework.Proxy, d time.Duration) {
	api.Hang()
	time.Sleep(d)
}
