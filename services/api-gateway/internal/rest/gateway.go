// Package rest is the HTTP side: grpc-gateway's routes with this suite's JSON (snake_case, ids as
// numbers, nulls shown, times in milliseconds), errors as application/problem+json (RFC 9457), and the way
// to the event stream. Every call goes over gRPC to this process' own server, so that one chain of
// interceptors guards both. It has no rules of its own but the form of requests.
package rest

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	auditv1 "github.com/sametick/sametick/proto/gen/go/sametick/audit/v1"
	eventsv1 "github.com/sametick/sametick/proto/gen/go/sametick/events/v1"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
)

const (
	// maxBody is the largest body that is read.
	maxBody = 1 << 20
	// A request must arrive, and its answer leave, in this time; the stream has its own rules.
	bodyTimeout, answerTimeout = 30 * time.Second, 60 * time.Second

	streamPath = "/api/events/stream"
)

// Options of New.
type Options struct {
	// Conn leads to this process' gRPC server; Secret is what it knows its REST side by.
	Conn   *grpc.ClientConn
	Secret string
	// Stream serves /api/events/stream.
	Stream http.Handler
	// Proxies are the networks whose X-Forwarded-For is believed.
	Proxies []netip.Prefix
	Log     *slog.Logger
}

// New makes the handler of all REST routes.
func New(ctx context.Context, o Options) (http.Handler, error) {
	p := &problems{log: o.Log}
	gw := &gateway{options: o, problems: p}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, codec{}),
		runtime.WithErrorHandler(p.ofGRPC), runtime.WithRoutingErrorHandler(p.ofRouting),
		runtime.WithMiddlewares(gw.checkForm),
		runtime.WithMetadata(gw.metadata),
		runtime.WithIncomingHeaderMatcher(incoming), runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithOutgoingTrailerMatcher(none),
		runtime.WithDisablePathLengthFallback(), runtime.WithDisableHTTPMethodOverride(), runtime.WithWriteContentLength(),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		recordsv1.RegisterRecordServiceHandler, eventsv1.RegisterEventServiceHandler, identityv1.RegisterIdentityServiceHandler,
		auditv1.RegisterAuditServiceHandler,
	} {
		if err := register(ctx, mux, o.Conn); err != nil {
			return nil, err
		}
	}
	if err := gw.exports(mux); err != nil {
		return nil, err
	}
	gw.mux = mux
	return gw, nil
}

type gateway struct {
	options  Options
	problems *problems
	mux      http.Handler
}

// ServeHTTP gives each request its id, its limits and its route.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := telemetry.TakeRequestID(r.Header.Get("X-Request-Id"))
	w.Header().Set("X-Request-Id", id)
	r = r.WithContext(telemetry.WithRequestID(telemetry.WithTraceparent(r.Context(), r.Header.Get("Traceparent")), id))
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler { //nolint:errorlint // net/http's own way to end a connection
				panic(v)
			}
			g.options.Log.ErrorContext(r.Context(), "panic", "value", v, "stack", string(debug.Stack()))
			g.problems.write(w, r, errs.New(errs.Internal, "INTERNAL", "internal error"))
		}
	}()
	if r.URL.Path == streamPath {
		if r.Method != http.MethodGet {
			g.problems.method(w, r, http.MethodGet)
			return
		}
		g.options.Stream.ServeHTTP(w, r)
		return
	}
	r.Header.Del("Grpc-Timeout") // how long a call may take is not for a stranger to say
	control := http.NewResponseController(w)
	now := time.Now()
	_ = control.SetReadDeadline(now.Add(bodyTimeout)) // a recorder in a test has none
	_ = control.SetWriteDeadline(now.Add(answerTimeout))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	r.Body = &body{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody)}
	g.mux.ServeHTTP(w, r)
}

// incoming passes on what the gRPC side reads, and nothing else that a stranger sends.
func incoming(header string) (string, bool) {
	switch header {
	case "Authorization":
		return "authorization", true
	default:
		return "", false
	}
}

// none keeps gRPC's own headers from the answer.
func none(string) (string, bool) { return "", false }

func (g *gateway) metadata(ctx context.Context, r *http.Request) metadata.MD {
	return metadata.Pairs(
		rpc.RequestIDKey, telemetry.RequestID(ctx),
		grpcapi.GatewayKey, g.options.Secret,
		grpcapi.ClientIPKey, clientIP(r, g.options.Proxies),
		grpcapi.UserAgentKey, grpcapi.Printable(r.UserAgent()),
	)
}
