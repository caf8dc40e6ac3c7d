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

// httpServer serves metrics and health. It runs on all replicas, not only on the leader.
type httpServer struct {
	server *http.Server // nil: disabled
}

// startHTTP listens before it returns, so that the process does not start if the port is in use.
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
	// Serve returns an error only after the shutdown.
	go func() { _ = server.Serve(listener) }()
	return &httpServer{server: server}, nil
}

// stop waits until running requests have ended, for at most 2 s.
func (s *httpServer) stop(ctx context.Context) {
	if s.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Failed to shut down the HTTP server")
	}
}
