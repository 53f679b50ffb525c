package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/telemetry"
)

// RequestIDKey is the metadata key of the request id, both ways.
const RequestIDKey = "x-request-id"

// edge is the outermost interceptor: one place gives the request its id and deadline, catches a panic,
// maps the error, counts and logs. One interceptor, because their order is what matters.
type edge struct {
	log     *slog.Logger
	timeout time.Duration
	seconds *prometheus.HistogramVec
	running *prometheus.GaugeVec
}

func newEdge(o ServerOptions) *edge {
	e := &edge{
		log:     o.Log,
		timeout: orDefault(o.Timeout, defaultTimeout),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sametick_grpc_server_seconds", Help: "Time to serve a call, streams whole.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"method", "code"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sametick_grpc_server_running", Help: "Calls being served.",
		}, []string{"method"}),
	}
	o.Registry.MustRegister(e.seconds, e.running)
	return e
}

func (e *edge) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (res any, err error) {
	ctx, cancel := context.WithTimeout(withRequestID(ctx), e.timeout)
	defer cancel()
	err = e.around(ctx, info.FullMethod, func() (err error) {
		res, err = next(ctx, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

func (e *edge) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx := withRequestID(ss.Context())
	return e.around(ctx, info.FullMethod, func() error { return next(srv, serverStream{ss, ctx}) })
}

// around runs call and returns a status error, or nil.
func (e *edge) around(ctx context.Context, method string, call func() error) error {
	begin := time.Now()
	running := e.running.WithLabelValues(method)
	running.Inc()
	defer running.Dec()
	err := caught(call)
	if err == nil {
		e.seconds.WithLabelValues(method, "OK").Observe(time.Since(begin).Seconds())
		return nil
	}
	mapped := errs.From(err)
	e.seconds.WithLabelValues(method, mapped.Kind.Code().String()).Observe(time.Since(begin).Seconds())
	attrs := []slog.Attr{
		slog.String("method", method), slog.String("kind", mapped.Kind.String()), slog.String("reason", mapped.Reason),
		slog.Duration("took", time.Since(begin)), slog.String("error", err.Error()),
	}
	if p, ok := err.(*panicked); ok { //nolint:errorlint // caught returns it bare
		attrs = append(attrs, slog.String("stack", p.stack))
	}
	e.log.LogAttrs(ctx, level(mapped.Kind), "call failed", attrs...)
	return status.FromProto(mapped.GRPCStatus().Proto()).Err()
}

func level(k errs.Kind) slog.Level {
	switch {
	case k == errs.Canceled: // a client went away: no fault of anyone
		return slog.LevelDebug
	case k.ClientFault():
		return slog.LevelInfo
	case k == errs.Unavailable, k == errs.DeadlineExceeded:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

type panicked struct {
	value any
	stack string
}

// Error is for the log; the caller sees "internal error".
func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// caught turns a panic of one request into its error: the others must go on.
func caught(call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{v, string(debug.Stack())}
		}
	}()
	return call()
}

// withRequestID takes the caller's id or draws one, and sends it back in the headers.
func withRequestID(ctx context.Context) context.Context {
	id := telemetry.TakeRequestID(strings.Join(metadata.ValueFromIncomingContext(ctx, RequestIDKey), " "))
	_ = grpc.SetHeader(ctx, metadata.Pairs(RequestIDKey, id)) // fails only when the stream is over
	return telemetry.WithRequestID(ctx, id)
}

// serverStream is a stream in a context of an interceptor's.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context has what the interceptor found.
func (s serverStream) Context() context.Context { return s.ctx }
