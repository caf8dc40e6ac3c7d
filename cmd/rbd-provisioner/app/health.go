package app

import (
	"fmt"
	"net/http"
	"strings"
)

// check is one named condition of health.
type check struct {
	name string
	run  func(*http.Request) error
}

// health sorts checks by what follows from a failure: a process that is not live is
// restarted, one that is not ready is left to become so.
type health struct {
	live, ready []check
}

// install serves /livez and /readyz (all their checks, listed with ?verbose), each
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
		for _, c := range checks {
			if err := c.run(r); err != nil {
				failed = true
				fmt.Fprintf(&report, "[-]%s failed: %v\n", c.name, err)
				continue
			}
			fmt.Fprintf(&report, "[+]%s ok\n", c.name)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, verbose := r.URL.Query()["verbose"]
		switch {
		case failed:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprint(w, report.String())
		case verbose:
			_, _ = fmt.Fprint(w, report.String())
		default:
			_, _ = fmt.Fprint(w, "ok")
		}
	}
}
