package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/leadership"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/poollimit"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// serve starts the server on a free port and returns its handler.
func serve(t *testing.T, opts *Options, health health) http.Handler {
	t.Helper()
	opts.HTTPEndpoint = "127.0.0.1:0"
	server, err := startHTTP(t.Context(), opts, prometheus.NewRegistry(), health)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.stop(t.Context()) })
	return server.server.Handler
}

func get(handler http.Handler, path string) (code int, body string) {
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	return recorder.Code, recorder.Body.String()
}

func passing(name string) check {
	return check{name: name, run: func(*http.Request) error { return nil }}
}

func failing(name, why string) check {
	return check{name: name, run: func(*http.Request) error { return errors.New(why) }}
}

func degrading(name, why string) check {
	return check{name: name, run: func(*http.Request) error { return degraded{errors.New(why)} }}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	healthy := health{live: []check{passing("lease")}, ready: []check{passing("caches"), passing("store")}}
	starting := health{live: healthy.live, ready: []check{failing("caches", "Nodes have not been listed yet"), passing("store")}}
	degradedPool := health{live: healthy.live, ready: []check{passing("caches"), degrading("store", "one of two does not respond")}}
	expired := health{live: []check{failing("lease", "it has expired")}, ready: healthy.ready}
	for name, test := range map[string]struct {
		health health
		path   string
		code   int
		body   string
	}{
		"live":                               {healthy, "/livez", 200, "ok"},
		"live, verbose":                      {healthy, "/livez?verbose", 200, "[+]lease ok\n"},
		"healthz is livez":                   {healthy, "/healthz?verbose", 200, "[+]lease ok\n"},
		"ready":                              {healthy, "/readyz", 200, "ok"},
		"ready, verbose":                     {healthy, "/readyz?verbose", 200, "[+]caches ok\n[+]store ok\n"},
		"one check":                          {healthy, "/healthz/caches", 200, "ok"},
		"one check, verbose":                 {healthy, "/healthz/lease?verbose", 200, "[+]lease ok\n"},
		"an unknown check":                   {healthy, "/healthz/weather", 404, "404 page not found\n"},
		"not ready":                          {starting, "/readyz", 503, "[-]caches failed: Nodes have not been listed yet\n[+]store ok\n"},
		"not ready, verbose":                 {starting, "/readyz?verbose", 503, "[-]caches failed: Nodes have not been listed yet\n[+]store ok\n"},
		"not ready, but live":                {starting, "/livez", 200, "ok"},
		"one check fails":                    {starting, "/healthz/caches", 503, "[-]caches failed: Nodes have not been listed yet\n"},
		"another check does not fail":        {starting, "/healthz/store", 200, "ok"},
		"degraded is ready, with the reason": {degradedPool, "/readyz", 200, "[+]caches ok\n[-]store degraded: one of two does not respond\n"},
		"not live":                           {expired, "/livez", 503, "[-]lease failed: it has expired\n"},
		"healthz of not live":                {expired, "/healthz", 503, "[-]lease failed: it has expired\n"},
		"not live, but ready":                {expired, "/readyz", 200, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, body := get(serve(t, testOptions(), test.health), test.path)
			if code != test.code {
				t.Errorf("GET %s: %d, want %d", test.path, code, test.code)
			}
			if diff := cmp.Diff(test.body, body); diff != "" {
				t.Errorf("GET %s (-want +got):\n%s", test.path, diff)
			}
		})
	}
}

func TestProfilesAreServedOnlyIfEnabled(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/goroutine?debug=1"} {
		for enabled, want := range map[bool]int{false: 404, true: 200} {
			opts := testOptions()
			opts.EnablePprof = enabled
			if code, _ := get(serve(t, opts, health{}), path); code != want {
				t.Errorf("GET %s with profiles %t: %d, want %d", path, enabled, code, want)
			}
		}
	}
}

func TestMetricsAreServedAtTheirPath(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.MetricsPath, opts.HTTPEndpoint = "/rbd", "127.0.0.1:0"
	server, err := startHTTP(t.Context(), opts, newMetrics().registry, health{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.stop(t.Context())
	code, body := get(server.server.Handler, "/rbd")
	if code != 200 || !strings.Contains(body, "\nrbd_provisioner_build_info{") || !strings.Contains(body, "\ngo_goroutines ") {
		t.Errorf("GET /rbd: %d, %s", code, body)
	}
	if code, _ := get(server.server.Handler, "/metrics"); code != 404 {
		t.Errorf("GET /metrics: %d, want 404", code)
	}
}

func TestAPortInUseIsAnError(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	opts := testOptions()
	opts.HTTPEndpoint = listener.Addr().String()
	_, err = startHTTP(t.Context(), opts, prometheus.NewRegistry(), health{})
	if err == nil || !strings.HasPrefix(err.Error(), "serve metrics and health (--http-endpoint): listen tcp 127.0.0.1:") {
		t.Fatalf("error %v, the port is in use", err)
	}
}

func TestTheServerRespondsUntilItIsStopped(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.HTTPEndpoint = "127.0.0.1:0"
	server, err := startHTTP(t.Context(), opts, prometheus.NewRegistry(), health{live: []check{passing("lease")}})
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + server.server.Addr + "/livez"
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "ok" {
		t.Errorf("body %q, %v", body, err)
	}
	server.stop(t.Context())
	if response, err := client.Get(url); err == nil {
		_ = response.Body.Close()
		t.Error("the server responds after the stop")
	}
}

func TestNoServerWithoutAnEndpoint(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.HTTPEndpoint = ""
	server, err := startHTTP(t.Context(), opts, prometheus.NewRegistry(), health{})
	if err != nil {
		t.Fatal(err)
	}
	server.stop(t.Context())
}

// TestTheLeaderElectionCheckHasItsName: external-provisioner uses the same path.
func TestTheLeaderElectionCheckHasItsName(t *testing.T) {
	t.Parallel()
	handler := serve(t, testOptions(), health{live: []check{leaderElectionCheck(&leadership.Elector{})}})
	if code, body := get(handler, "/healthz/leader-election"); code != 200 || body != "ok" {
		t.Errorf("%d %q, want 200 ok", code, body)
	}
}

func TestCephHealth(t *testing.T) {
	t.Parallel()
	ceph := rbdfake.New("kube")
	ceph.Before = func(_ context.Context, _ string, c rbdutil.Cluster, _ rbdutil.ImageRef) error {
		if c.Monitors[0] == "dead" {
			return fmt.Errorf("connect: %w", rbdutil.ErrUnreachable)
		}
		return nil
	}
	limiter := poollimit.New(1, time.Hour)
	ceph.Limiter = limiter
	list := func(monitor string) {
		_, _ = ceph.List(t.Context(), rbdutil.Cluster{Monitors: []string{monitor, "b"}, User: "kube"}, "kube")
	}
	handler := serve(t, testOptions(), health{ready: []check{cephCheck(limiter)}})
	const outage = "dead,b, pool kube as client.kube: Ceph cluster cannot be reached, for 0s\n"
	for _, step := range []struct {
		monitor string
		code    int
		body    string
	}{
		{"", 200, "ok"},
		{"dead", 503, "[-]ceph failed: " + outage},
		{"alive", 200, "[-]ceph degraded: " + outage},
	} {
		if step.monitor != "" {
			list(step.monitor)
		}
		code, body := get(handler, "/readyz")
		if code != step.code || body != step.body {
			t.Errorf("after a call of %q: %d %q, want %d %q", step.monitor, code, body, step.code, step.body)
		}
	}
}
