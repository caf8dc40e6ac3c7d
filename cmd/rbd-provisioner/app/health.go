package app

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/poollimit"
)

// check is one named condition of health.
type check struct {
	name string
	run  func(*http.Request) error
}

// degraded is an error of a check that is told, and yet leaves the process ready.
type degraded struct{ error }

// health sorts checks by what follows from a failure: a process that is not live is
// restarted, one that is not ready is left to become so.
type health struct {
	live, ready []check
}

// install serves /livez and /readyz (all their checks, listed with ?verbose or when
// there is something to tell), each
// check by itself below /healthz/, and /healthz as /livez.
func (h health) install(mux *http.ServeMux) {
	mux.HandleFunc("/livez", serveChecks(h.live))
	mux.HandleFunc("/healthz", serveChecks(h.live))
	mux.HandleFunc("/readyz", serveChecks(h.ready))
	for _, c := range append(append([]check{}, h.live...), h.ready...) {
		mux.HandleFunc("/healthz/"+c.name, serveChecks([]check{c}))
	}
}

func serveChecks(checks []check) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var report strings.Builder
		failed := false
		_, tell := r.URL.Query()["verbose"]
		for _, c := range checks {
			err := c.run(r)
			switch {
			case err == nil:
				fmt.Fprintf(&report, "[+]%s ok\n", c.name)
			case errors.As(err, new(degraded)):
				tell = true
				fmt.Fprintf(&report, "[-]%s degraded: %v\n", c.name, err)
			default:
				failed = true
				fmt.Fprintf(&report, "[-]%s failed: %v\n", c.name, err)
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case failed:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprint(w, report.String())
		case tell:
			_, _ = fmt.Fprint(w, report.String())
		default:
			_, _ = fmt.Fprint(w, "ok")
		}
	}
}

// cephCheck names the pools that do not answer. It fails if no pool in use answers: then
// this process cannot do anything.
func cephCheck(limiter *poollimit.Limiter) check {
	return check{name: "ceph", run: func(*http.Request) error {
		outages, answering := limiter.Outages()
		if len(outages) == 0 {
			return nil
		}
		var texts []string
		for _, o := range outages {
			texts = append(texts, fmt.Sprintf("%s, pool %s as client.%s: %v, for %s",
				o.Monitors, o.Pool, o.User, o.Err, time.Since(o.Since).Round(time.Second)))
		}
		err := errors.New(strings.Join(texts, "; "))
		if answering {
			return degraded{err}
		}
		return err
	}}
}
