package rest

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/telemetry"
)

// problem is an error as RFC 9457 shows it, with what clients branch on.
type problem struct {
	// Type is about:blank: Reason tells problems apart.
	Type     string            `json:"type"`
	Title    string            `json:"title"`
	Status   int               `json:"status"`
	Detail   string            `json:"detail"`
	Reason   string            `json:"reason"`
	Errors   []fieldProblem    `json:"errors"`
	Metadata map[string]string `json:"metadata,omitempty"`
	// RequestID finds the request in the logs.
	RequestID string `json:"request_id"`
}

type fieldProblem struct {
	Field       string `json:"field"`
	Reason      string `json:"reason"`
	Description string `json:"description"`
}

type problems struct{ log *slog.Logger }

// ofGRPC is grpc-gateway's error handler. What this side has found itself it has left in the body,
// because generated code passes on errors as texts.
func (p *problems) ofGRPC(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if b, ok := r.Body.(*body); ok && b.fault != nil {
		err = b.fault
	}
	if md, ok := runtime.ServerMetadataFromContext(ctx); ok {
		setRateLimits(w, md.HeaderMD)
	}
	p.write(w, r, errs.From(err))
}

func (p *problems) ofRouting(_ context.Context, mux *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
	// An escaped slash makes grpc-gateway take one path for another: 405 needs a method to name.
	if methods := allowed(mux, r); status == http.StatusMethodNotAllowed && len(methods) > 0 {
		p.method(w, r, methods...)
		return
	}
	p.write(w, r, errs.New(errs.NotFound, "ROUTE_NOT_FOUND", "there is no such route"))
}

// allowed asks the routes which methods a path has.
func allowed(mux *runtime.ServeMux, r *http.Request) (methods []string) {
	for key := range routes() {
		method, pattern, _ := strings.Cut(key, " ")
		if matches(pattern, r.URL.Path) && !slices.Contains(methods, method) {
			methods = append(methods, method)
		}
	}
	if slices.Contains(methods, http.MethodGet) && !slices.Contains(methods, http.MethodHead) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	return methods
}

// matches tells whether a path has the form of a pattern, whose variables stand for one segment each, up to
// a verb.
func matches(pattern, path string) bool {
	pattern, verb, _ := strings.Cut(pattern, ":")
	path, given, _ := strings.Cut(path, ":")
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	return verb == given && slices.EqualFunc(want, got, func(w, g string) bool { return w == g || strings.HasPrefix(w, "{") })
}

// method answers 405 (RFC 9110, 15.5.6).
func (p *problems) method(w http.ResponseWriter, r *http.Request, methods ...string) {
	w.Header().Set("Allow", strings.Join(methods, ", "))
	e := errs.New(errs.Unimplemented, "METHOD_NOT_ALLOWED", "this route has other methods: "+strings.Join(methods, ", "))
	p.writeStatus(w, r, e, http.StatusMethodNotAllowed)
}

func (p *problems) write(w http.ResponseWriter, r *http.Request, e *errs.Error) {
	status := errs.HTTPStatus(e.Kind)
	if e.Reason == "VERSION_MISMATCH" && r.Header.Get("If-Match") != "" { // RFC 9110, 13.1.1
		status = http.StatusPreconditionFailed
	}
	if e.Reason == "IDEMPOTENCY_KEY_REUSED" || e.Reason == "REVIEW_REJECTED" {
		status = http.StatusUnprocessableEntity
	}
	p.writeStatus(w, r, e, status)
}

func (p *problems) writeStatus(w http.ResponseWriter, r *http.Request, e *errs.Error, status int) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	switch {
	case status == http.StatusUnauthorized && e.Reason == "TOKEN_MISSING": // RFC 6750, section 3.1
		h.Set("WWW-Authenticate", `Bearer realm="sametick"`)
	case status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="sametick", error="invalid_token"`)
	case status == http.StatusRequestEntityTooLarge:
		h.Set("Connection", "close") // the rest of the body is not read
	}
	out := problem{Type: "about:blank", Title: title(status), Status: status, Detail: e.Message, Reason: e.Reason,
		Errors: []fieldProblem{}, Metadata: e.Meta, RequestID: telemetry.RequestID(r.Context())}
	for _, f := range e.Fields {
		out.Errors = append(out.Errors, fieldProblem(f))
	}
	// The path and not the query: that may hold a token.
	p.log.LogAttrs(r.Context(), slog.LevelInfo, "request refused", slog.String("method", r.Method),
		slog.String("path", r.URL.Path), slog.Int("status", status), slog.String("error", e.Error()))
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out) // a client that is gone needs no answer
}

func title(status int) string {
	if t := http.StatusText(status); t != "" {
		return t
	}
	return "Client Closed Request" // 499
}
