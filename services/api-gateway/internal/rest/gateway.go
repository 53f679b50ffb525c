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
	"strings"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	auditv1 "github.com/sametick/sametick/proto/gen/go/sametick/audit/v1"
	eventsv1 "github.com/sametick/sametick/proto/gen/go/sametick/events/v1"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	typesv1 "github.com/sametick/sametick/proto/gen/go/sametick/types/v1"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	workflowv1 "github.com/sametick/sametick/proto/gen/go/sametick/workflow/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
	"github.com/sametick/sametick/services/api-gateway/internal/openapi"
	"github.com/sametick/sametick/services/api-gateway/internal/portal"
)

const (
	// maxBody is the largest body that is read, maxBatch that of a batch.
	maxBody, maxBatch = 1 << 20, 16 << 20
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
		runtime.WithMetadata(gw.metadata), runtime.WithForwardResponseOption(entityTag),
		runtime.WithIncomingHeaderMatcher(incoming), runtime.WithOutgoingHeaderMatcher(outgoing),
		runtime.WithOutgoingTrailerMatcher(none),
		runtime.WithDisablePathLengthFallback(), runtime.WithDisableHTTPMethodOverride(), runtime.WithWriteContentLength(),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		recordsv1.RegisterRecordServiceHandler, eventsv1.RegisterEventServiceHandler, identityv1.RegisterIdentityServiceHandler,
		identityv1.RegisterDirectoryServiceHandler,
		typesv1.RegisterTypeServiceHandler, auditv1.RegisterAuditServiceHandler, workflowv1.RegisterWorkflowServiceHandler,
		webhooksv1.RegisterWebhookServiceHandler, promptsv1.RegisterPromptServiceHandler,
	} {
		if err := register(ctx, mux, o.Conn); err != nil {
			return nil, err
		}
	}
	if err := gw.auditExport(mux); err != nil {
		return nil, err
	}
	var err error
	if gw.docs, err = openapi.New(grpcapi.Requirements()); err != nil {
		return nil, err
	}
	if gw.portal, err = portal.New(); err != nil {
		return nil, err
	}
	gw.exports = &exports{gateway: gw, client: recordsv1.NewRecordServiceClient(o.Conn)}
	gw.mux = mux
	return gw, nil
}

type gateway struct {
	options  Options
	problems *problems
	exports  *exports
	docs     http.Handler
	portal   http.Handler
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
		if r.Method != http.MethodGet && r.Method != http.MethodHead { // which opens none
			g.problems.method(w, r, http.MethodGet, http.MethodHead)
			return
		}
		g.options.Stream.ServeHTTP(w, r)
		return
	}
	if pages := g.pages(r.URL.Path); pages != nil {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			g.problems.method(w, r, http.MethodGet, http.MethodHead)
			return
		}
		pages.ServeHTTP(w, r)
		return
	}
	if r.Method == http.MethodHead && r.URL.Path != auditExportPath {
		r.Method = http.MethodGet // net/http, which has a request of its own, sends the header alone
	}
	// gRPC takes no such metadata; grpc-gateway leaves it out and writes to stderr what is no line of our log.
	if strings.ContainsFunc(r.Header.Get("Authorization"), func(c rune) bool { return c >= utf8.RuneSelf }) {
		r.Header.Del("Authorization")
	}
	if typ, ok := exportOf(r.URL.Path); ok {
		g.exports.serve(w, r, typ)
		return
	}
	r.Header.Del("Grpc-Timeout") // how long a call may take is not for a stranger to say
	control := http.NewResponseController(w)
	now := time.Now()
	_ = control.SetReadDeadline(now.Add(bodyTimeout)) // a recorder in a test has none
	_ = control.SetWriteDeadline(now.Add(answerTimeout))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	limit := int64(maxBody)
	if strings.HasSuffix(r.URL.Path, ":batch") {
		limit = maxBatch
	}
	r.Body = &body{ReadCloser: http.MaxBytesReader(w, r.Body, limit), limit: limit}
	g.mux.ServeHTTP(w, r)
}

// pages gives what serves a path of a page, which is the same for everybody; nil for all others.
func (g *gateway) pages(path string) http.Handler {
	switch {
	case path == "/": // who opens the printed address in a browser
		return http.RedirectHandler(openapi.DocsPath, http.StatusFound)
	case openapi.Serves(path):
		return g.docs
	case portal.Serves(path):
		return g.portal
	}
	return nil
}

// incoming passes on what the gRPC side reads, and nothing else that a stranger sends.
func incoming(header string) (string, bool) {
	switch header {
	case "Authorization":
		return "authorization", true
	case "Idempotency-Key":
		return idempotency.Key, true
	default:
		return "", false
	}
}

// none keeps gRPC's own headers from the answer.
func none(string) (string, bool) { return "", false }

// outgoing passes on what an answer says of itself.
func outgoing(key string) (string, bool) {
	if key == idempotency.Replayed {
		return "Idempotency-Replayed", true
	}
	name, ok := rateLimits[key]
	return name, ok
}

func (g *gateway) metadata(ctx context.Context, r *http.Request) metadata.MD {
	return metadata.Pairs(
		rpc.RequestIDKey, telemetry.RequestID(ctx),
		grpcapi.GatewayKey, g.options.Secret,
		grpcapi.ClientIPKey, clientIP(r, g.options.Proxies),
		grpcapi.UserAgentKey, grpcapi.Printable(r.UserAgent()),
		grpcapi.IfMatchKey, ifMatch(r),
		grpcapi.OriginKey, origin(r, g.options.Proxies),
	)
}
