//go:build e2e

package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestKilledAtEveryRequest kills the provisioner at each request to the API server while it
// starts and creates, expands and deletes a volume. A test in rbdutil/librbd does the same for
// the requests to Ceph.
func TestKilledAtEveryRequest(t *testing.T) {
	t.Parallel()
	t.Run("before it is sent", func(t *testing.T) {
		t.Parallel()
		killAtEveryRequest(t, false, func(t *testing.T, e *framework.Env, claim *corev1.PersistentVolumeClaim) {
			// A claim that was not served yet must be served now, once.
			if now, err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Get(t.Context(), claim.Name, metav1.GetOptions{}); err == nil {
				volume := e.AwaitBound(t, claim)
				e.WantImage(t, framework.ImageOf(volume), true)
				e.AwaitSize(t, claim.Name, now.Spec.Resources.Requests.Storage().String(), framework.Timeout)
			}
			deleteIfThere(t, e, claim)
		})
	})
	t.Run("after it is answered", func(t *testing.T) {
		t.Parallel()
		// The claim is deleted while no provisioner with a record of it runs.
		killAtEveryRequest(t, true, deleteIfThere)
	})
}

// killAtEveryRequest kills at request 1, 2, … until a run completes. After each kill it calls
// andThen, and another provisioner must leave the pool empty.
func killAtEveryRequest(t *testing.T, answered bool, andThen func(*testing.T, *framework.Env, *corev1.PersistentVolumeClaim)) {
	e := newEnv(t)
	class := e.Class(t, "steps", framework.Expandable)
	gate := newRequestGate(t)
	n := 1
	for ; ; n++ {
		claim := e.Claim(t, fmt.Sprintf("claim-%d", n), class, framework.Block)
		if !gate.killAt(t, e, claim, n, answered) {
			break
		}
		p := framework.Start(t, e, "--leader-election=false", "--orphan-grace=1s")
		andThen(t, e, claim)
		e.Await(t, fmt.Sprintf("all objects to be deleted after a kill at request %d (%s)", n, gate.last()), framework.Timeout, func(ctx context.Context) error {
			return checkNothingLeft(ctx, e)
		})
		p.Kill(t)
	}
	t.Logf("killed at %d requests, last at %s", n-1, gate.last())
	// At least four lists and watches, Secrets, and requests for a volume, its finalizer, its
	// size, its deletion, and events.
	if n < 20 {
		t.Errorf("only %d requests, which cannot be a complete run", n-1)
	}
}

func deleteIfThere(t *testing.T, e *framework.Env, claim *corev1.PersistentVolumeClaim) {
	err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Delete(t.Context(), claim.Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// checkNothingLeft returns an error if claims, volumes or images remain, also in the trash.
func checkNothingLeft(ctx context.Context, e *framework.Env) error {
	claims, err := e.Claims(ctx)
	if err != nil {
		return err
	}
	volumes, err := e.Volumes(ctx)
	if err != nil {
		return err
	}
	images, err := e.TryImages(ctx)
	if err != nil {
		return err
	}
	trash, err := e.TryTrash(ctx)
	if err != nil {
		return err
	}
	if len(claims)+len(volumes)+len(images)+len(trash) > 0 {
		return fmt.Errorf("%d claims, %d volumes, the images %q, and in the trash %q", len(claims), len(volumes), images, trash)
	}
	return nil
}

// requestGate is a proxy between a provisioner and the API server that kills or pauses the
// provisioner.
type requestGate struct {
	kubeconfig string
	forward    http.Handler

	mu       sync.Mutex
	count    int
	hits     func(r *http.Request, count int) bool // reports whether to kill or pause at this request
	answered bool
	victim   chan *framework.Process
	pausing  *requestPause // nil: the provisioner is killed
	request  string        // the request of the last kill or pause
}

func newRequestGate(t *testing.T) *requestGate {
	t.Helper()
	config := framework.ServiceAccountConfig(t)
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	g := &requestGate{forward: &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport, FlushInterval: -1,
		// A kill interrupts a watch.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["c"] = &clientcmdapi.Cluster{Server: server.URL}
	kubeconfig.Contexts["x"] = &clientcmdapi.Context{Cluster: "c"}
	kubeconfig.CurrentContext = "x"
	g.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*kubeconfig, g.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return g
}

// killAt has a provisioner serve, expand and delete the claim, and kills it at request n. It
// reports whether that request was sent.
func (g *requestGate) killAt(t *testing.T, e *framework.Env, claim *corev1.PersistentVolumeClaim, n int, answered bool) (killed bool) {
	t.Helper()
	victim := make(chan *framework.Process, 1)
	g.mu.Lock()
	g.count, g.hits, g.answered, g.victim = 0, func(_ *http.Request, count int) bool { return count == n }, answered, victim
	g.mu.Unlock()
	p := framework.Start(t, e, "--kubeconfig="+g.kubeconfig, "--leader-election=false", "--orphan-grace=0")
	victim <- p
	asked, deleted := false, false
	e.Await(t, fmt.Sprintf("a kill at request %d, or the deletion of the claim", n), framework.Timeout, func(ctx context.Context) error {
		if !p.Running() {
			return nil
		}
		if !deleted {
			now, err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Get(ctx, claim.Name, metav1.GetOptions{})
			if err != nil || now.Status.Phase != corev1.ClaimBound {
				return errors.Join(err, errors.New("the claim is not bound"))
			}
			if !asked {
				asked = true
				return cmp.Or(e.TryRequestSize(ctx, claim.Name, "2Gi"), errors.New("the expansion has just been requested"))
			}
			if has := now.Status.Capacity.Storage(); has.Cmp(*now.Spec.Resources.Requests.Storage()) < 0 {
				return fmt.Errorf("the claim has %s", has)
			}
			deleted = true
			if err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Delete(ctx, claim.Name, metav1.DeleteOptions{}); err != nil {
				return err
			}
		}
		return checkNothingLeft(ctx, e)
	})
	if !p.Running() {
		return true
	}
	// The last event may not have been sent yet.
	time.Sleep(500 * time.Millisecond)
	killed = !p.Running()
	if !killed {
		p.Kill(t)
	}
	return killed
}

// killWhen kills the next victim before the first matching request arrives.
func (g *requestGate) killWhen(victim chan *framework.Process, fits func(*http.Request) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered, g.victim = false, victim
	g.hits = func(r *http.Request, _ int) bool {
		hit := fits(r)
		if hit {
			g.hits = nil
		}
		return hit
	}
}

func (g *requestGate) last() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.request
}

// ServeHTTP implements http.Handler.
func (g *requestGate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.count++
	hit := g.hits != nil && g.hits(r, g.count)
	answered, victim, pausing := g.answered, g.victim, g.pausing
	if hit {
		g.request = r.Method + " " + r.URL.Path
	}
	g.mu.Unlock()
	switch {
	case !hit:
		g.forward.ServeHTTP(w, r)
		return
	case pausing != nil:
		pausing.serve(w, r, g.forward, answered)
		return
	}
	if answered && !r.URL.Query().Has("watch") { // the response of a watch does not end
		g.forward.ServeHTTP(httptest.NewRecorder(), r)
	}
	p := <-victim
	_ = syscall.Kill(p.PID(), syscall.SIGKILL)
	p.Wait() // afterwards no client waits for a response
}
