package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/telemetry"
)

// ClientOptions of Dial.
type ClientOptions struct {
	// Token, if set, is sent as the suite's bearer token with every call.
	Token string
	// Tracer makes the spans; nil for none.
	Tracer trace.TracerProvider
	// TLS, if set, is used to connect.
	TLS *tls.Config
	// MaxRecvBytes bounds a response; 0 means 4 MiB.
	MaxRecvBytes int
	// Timeout bounds a unary call whose context has no deadline; 0 means 30 s.
	Timeout time.Duration
}

// Dial makes a client of addr (host:port, or any gRPC target). It does not connect yet. Calls are spread
// over all addresses of a DNS name, carry the request id of their context, and fail at once while no
// server is reachable. The caller closes it.
func Dial(addr string, o ClientOptions) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if o.TLS != nil {
		creds = credentials.NewTLS(o.TLS)
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(traceOptions(o.Tracer)...)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(orDefault(o.MaxRecvBytes, defaultMaxBytes))),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		// A sibling that restarts is back within a second or two; gRPC's own default waits up to 120 s.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithChainUnaryInterceptor(unaryClient(orDefault(o.Timeout, defaultTimeout))),
		grpc.WithChainStreamInterceptor(streamClient),
	}
	if o.Token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer(o.Token)))
	}
	c, err := grpc.NewClient(addr, opts...)
	if err != nil {
		return nil, fmt.Errorf("rpc: address %q: %w", addr, err)
	}
	return c, nil
}

func unaryClient(timeout time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, res any, c *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		return call(sendRequestID(ctx), method, req, res, c, opts...)
	}
}

func streamClient(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return open(sendRequestID(ctx), d, c, method, opts...)
}

func sendRequestID(ctx context.Context) context.Context {
	id := telemetry.RequestID(ctx)
	if id == "" {
		return ctx
	}
	if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md.Get(RequestIDKey)) > 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, RequestIDKey, id)
}
