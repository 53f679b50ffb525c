// Package rpc makes gRPC servers and clients that behave alike in every service: request ids, traces,
// metrics, deadlines, errors mapped and logged once, and a graceful end. Services and their rules live
// with the services.
package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/telemetry"
)

const (
	defaultMaxBytes = 4 << 20
	defaultTimeout  = 30 * time.Second
	// A client may ping every minPing without being cut off; ours do every pingEvery. A peer that answers no ping is
	// left after the sum of the latter two: until then every call to it waits for its deadline.
	minPing, pingEvery, pingTimeout = 10 * time.Second, 12 * time.Second, 10 * time.Second
)

// ServerOptions of NewServer.
type ServerOptions struct {
	// Addr is the TCP address.
	Addr string
	// Log gets one line per failed call.
	Log *slog.Logger
	// Registry gets the metrics.
	Registry *prometheus.Registry
	// Tracer makes the spans; nil for none.
	Tracer trace.TracerProvider
	// TLS, if set, serves with TLS.
	TLS *tls.Config
	// MaxRecvBytes bounds a request; 0 means 4 MiB.
	MaxRecvBytes int
	// Timeout bounds a unary call whose caller set no earlier deadline; 0 means 30 s.
	Timeout time.Duration
	// Unary and Stream run after the interceptors of this package, e.g. InternalAuth's.
	Unary  []grpc.UnaryServerInterceptor
	Stream []grpc.StreamServerInterceptor
	// Register registers the services.
	Register func(grpc.ServiceRegistrar)
}

// NewServer makes a server with health and reflection. Stop answers health checks with NOT_SERVING,
// takes no new call, waits for calls in hand and cancels them when the grace time is over. Streams that
// never end by themselves must be ended by a component that stops before this one.
func NewServer(o ServerOptions) *lifecycle.Server {
	e := newEdge(o)
	opts := []grpc.ServerOption{
		grpc.StatsHandler(otelgrpc.NewServerHandler(traceOptions(o.Tracer)...)),
		grpc.ChainUnaryInterceptor(append([]grpc.UnaryServerInterceptor{e.unary}, o.Unary...)...),
		grpc.ChainStreamInterceptor(append([]grpc.StreamServerInterceptor{e.stream}, o.Stream...)...),
		grpc.MaxRecvMsgSize(orDefault(o.MaxRecvBytes, defaultMaxBytes)),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	}
	if o.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(o.TLS)))
	}
	return lifecycle.NewServer("grpc", o.Addr, func(take, work context.Context, l net.Listener) error {
		s := grpc.NewServer(opts...)
		probe := health.NewServer()
		grpc_health_v1.RegisterHealthServer(s, probe)
		reflection.Register(s)
		if o.Register != nil {
			o.Register(s)
		}
		return serve(take, work, l, s, probe)
	})
}

func serve(take, work context.Context, l net.Listener, s *grpc.Server, probe *health.Server) error {
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-take.Done():
	}
	probe.Shutdown()
	stop := context.AfterFunc(work, s.Stop)
	s.GracefulStop()
	stop()
	if err := <-served; !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

func traceOptions(p trace.TracerProvider) []otelgrpc.Option {
	o := []otelgrpc.Option{otelgrpc.WithPropagators(telemetry.Propagator())}
	if p != nil {
		o = append(o, otelgrpc.WithTracerProvider(p))
	}
	return o
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
