package app

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/leadership"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/poollimit"
)

// check is one named health check.
type check struct {
	name string
	run  func(*http.Request) error
}

// degraded is an error of a check that is reported, but does not make the process unready.
type degraded struct{ error }

// health has the checks of liveness and readiness. A process that is not live is restarted. A process
// that is not ready is not restarted.
type health struct {
	live, ready []check
}

// install adds these paths:
//   - /livez, /readyz: all their checks. They are listed with ?verbose, or if a check returns an error.
//   - /healthz: the same as /livez.
//   - /healthz/NAME: one check.
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
		_, list := r.URL.Query()["verbose"]
		for _, c := range checks {
			err := c.run(r)
			switch {
			case err == nil:
				fmt.Fprintf(&report, "[+]%s ok\n", c.name)
			case errors.As(err, new(degraded)):
				list = true
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
		case list:
			_, _ = fmt.Fprint(w, report.String())
		default:
			_, _ = fmt.Fprint(w, "ok")
		}
	}
}

// leaderElectionCheck has the name that external-provisioner uses.
func leaderElectionCheck(elector *leadership.Elector) check {
	return check{name: "leader-election", run: elector.Check}
}

// cephCheck lists the pools that do not respond. It fails if no recently used pool responds, because this
// process cannot do anything then.
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
