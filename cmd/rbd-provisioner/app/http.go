package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"
)

// httpServer serves metrics and health, on every replica whether it leads or not.
type httpServer struct {
	server *http.Server // nil: none
}

// startHTTP listens before it returns, so that a port that is taken is a failure to
// start and not a line in the log.
func startHTTP(ctx context.Context, opts *Options, metrics prometheus.Gatherer, health health) (*httpServer, error) {
	if opts.HTTPEndpoint == "" {
		return &httpServer{}, nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", opts.HTTPEndpoint)
	if err != nil {
		return nil, fmt.Errorf("serve metrics and health (--http-endpoint): %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle(opts.MetricsPath, promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	health.install(mux)
	if opts.EnablePprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	server := &http.Server{Addr: listener.Addr().String(), Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	// Serve returns when the server is shut down, which is the only error to expect.
	go func() { _ = server.Serve(listener) }()
	return &httpServer{server: server}, nil
}

// stop lets requests that run come to an end.
func (s *httpServer) stop(ctx context.Context) {
	if s.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Closing the HTTP server")
	}
}
