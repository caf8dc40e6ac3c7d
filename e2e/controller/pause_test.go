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

// shortLease is a lease that runs out soon, though not on a busy machine that renews it.
var shortLease = []string{
	"--leader-election-lease-duration=6s", "--leader-election-renew-deadline=4s", "--leader-election-retry-period=200ms",
}

// requestPause is the pause of a process at one of its requests to the API server.
type requestPause struct {
	process   *framework.Process
	stopped   chan struct{} // closed when it is stopped
	goOn      func()
	resume    chan struct{} // closed by goOn
	delivered chan struct{} // closed when the request has been answered
}

// pauseAt has the gate stop the process at its request n, not counting those for the lease. The
// request comes to the API server before or, unless answered is set, after the pause.
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

// disarm ends the counting, and returns how many requests there were.
func (g *requestGate) disarm() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hits = nil
	return g.count
}

// serve is what the gate does with the request.
func (p *requestPause) serve(w http.ResponseWriter, r *http.Request, forward http.Handler, answered bool) {
	defer close(p.delivered)
	if r.URL.Query().Has("watch") {
		p.wait()
		forward.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	// The process may have exited before the request is sent.
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

// TestPausedAtEveryRequest stops a leader at requests that it sends to the API server while a
// volume and its clone are made, grown and deleted. Another one takes over, and pods write. Then
// the first goes on: it exits, and nothing is lost or left.
//
// PAUSES is at how many requests, 0 for all of them; PAUSE_SEED repeats the choice.
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

// lifeRequests is about how many requests there are in a life, without those for the lease.
const lifeRequests = 27

// pausedLife is the life of a claim and of its clone, and a leader that is paused in it.
type pausedLife struct {
	*framework.Env
	n        int
	answered bool

	gate           *requestGate
	pause          *requestPause
	first, standby *framework.Process
	sums           map[rbdutil.ImageRef]string
	over           bool // the first leader has gone
}

const lifeSize = 32 << 20

func (l *pausedLife) run(t *testing.T) {
	l.gate = newRequestGate(t) // it outlives the Env
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

	l.Ask(t, claim.Name, "64Mi")
	l.AwaitSize(t, claim.Name, "64Mi", framework.Patience)
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
	l.Await(t, "nothing to be left", framework.Patience, func(ctx context.Context) error { return nothingLeft(ctx, l.Env) })
	if l.over {
		return
	}
	t.Logf("it was not paused: there were %d requests", requests)
	if l.n <= lifeRequests/2 {
		t.Errorf("request %d did not come", l.n)
	}
}

// step wants that nothing was lost, and lets a leader go on that was paused until here.
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
	t.Logf("paused at request %d (%s), which is answered before: %t; then: %s", l.n, l.gate.last(), l.answered, step)
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

// wantAll wants the images with their data, and no others.
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

// TestALeaderLosesTheAPIServerForAWhile has the API server fail for the leader alone while claims
// are made and deleted, and come back around the time at which the leader must have exited. The
// lease is never given back while work runs. (TestALeaderThatIsCutOffIsReplaced has an API server
// that does not come back.)
func TestALeaderLosesTheAPIServerForAWhile(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(api *framework.Proxy, leader *process){
		"slow": func(api *framework.Proxy, leader *process) {
			api.Slow(time.Second) // longer than a request for the lease may take
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
			claims := createCrowd(t, e, class, smallCrowd)
			awaitImages(t, e, 3)
			e.DeleteClaim(t, "gone")
			wantBusy(t, e, smallCrowd)
			clients := cephClients(t, e)
			fail(api, leader)
			api.Heal(t)
			e.AwaitVolumeGone(t, gone)
			wantBoundOnce(t, e, claims)
			got := holders()
			if slices.Contains(got, "") || got[0] != first || len(got) > 2 {
				t.Errorf("the lease was held by %q", got)
			}
			if len(got) == 1 {
				t.Log("the leader has led on")
				return
			}
			if code := leader.AwaitExit(t); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			wantFenced(t, e, standby, clients)
		})
	}
}

// hangFor has the API server not answer for a time: what counts is when it comes back.
func hangFor(api *framework.Proxy, d time.Duration) {
	api.Hang()
	time.Sleep(d)
}
