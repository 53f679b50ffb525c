// Package sse is the event stream over net/http: the specification's GET /api/events/stream, over
// HTTP/1.1 and HTTP/2, behind TLS or not. What is sent, and from where, is internal/resume's.
package sse

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/telemetry"
	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
	"github.com/sametick/sametick/services/sse-gateway/internal/resume"
)

// Path is where the stream is.
const Path = "/api/events/stream"

// Verifier tells whose a token is.
type Verifier interface {
	Verify(ctx context.Context, token string) (auth.Principal, error)
}

// Handler serves Path, and problems elsewhere. All fields are required but Origins.
type Handler struct {
	Streams  *resume.Streams
	Verifier Verifier
	// WriteTimeout ends a stream whose client does not read for so long.
	WriteTimeout time.Duration
	// Retry is after how long clients reconnect, at least; up to half more.
	Retry time.Duration
	// Origins are the web origins, beside its own, whose pages may read the stream; "*" is any.
	Origins []string
	Log     *slog.Logger
}

// ServeHTTP never logs the query: it may hold a token.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := telemetry.TakeRequestID(r.Header.Get("X-Request-Id"))
	w.Header().Set("X-Request-Id", id)
	r = r.WithContext(telemetry.WithTraceparent(telemetry.WithRequestID(r.Context(), id), r.Header.Get("Traceparent")))
	h.cors(w, r)
	switch {
	case r.URL.Path != Path:
		h.problem(w, r, errs.New(errs.NotFound, "ROUTE_NOT_FOUND", "there is no such route; the stream is at "+Path))
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		w.WriteHeader(http.StatusNoContent)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		h.problemStatus(w, r, errs.New(errs.Unimplemented, "METHOD_NOT_ALLOWED", "this route has other methods: GET, HEAD"), http.StatusMethodNotAllowed)
	default:
		h.stream(w, r)
	}
}

func (h *Handler) stream(w http.ResponseWriter, r *http.Request) {
	req, err := h.request(r)
	if err != nil {
		h.problem(w, r, errs.From(err))
		return
	}
	if r.Method == http.MethodHead { // whether it would open; none does
		streamHeaders(w)
		return
	}
	begin := time.Now()
	unwatch := func() {}
	accepted, err := h.Streams.Serve(r.Context(), req, func(cut context.Context) resume.Sink {
		streamHeaders(w)
		s := &sink{w: w, rc: http.NewResponseController(w), timeout: h.WriteTimeout, retry: h.Retry, cut: cut}
		unwatch = s.watch()
		return s
	})
	unwatch()
	if accepted {
		h.Log.LogAttrs(r.Context(), slog.LevelDebug, "stream ended", slog.Int64("org_id", req.Org), slog.String("subject", req.Who.Subject),
			slog.Duration("took", time.Since(begin)), slog.String("why", err.Error()))
		return
	}
	if r.Context().Err() != nil {
		h.Log.LogAttrs(r.Context(), slog.LevelInfo, "client left before its stream began", slog.Int64("org_id", req.Org), slog.Duration("took", time.Since(begin)))
		return
	}
	// EventSource takes any status but 200 as final. What passes with time must not end it.
	if e := errs.From(err); r.Header.Get("Sec-Fetch-Mode") != "" && (e.Kind == errs.ResourceExhausted || e.Kind == errs.Unavailable) {
		h.Log.LogAttrs(r.Context(), slog.LevelInfo, "stream put off", slog.Int64("org_id", req.Org), slog.String("reason", e.Reason))
		streamHeaders(w)
		_, _ = w.Write(append(retryField(nil, max(h.Retry, e.RetryAfter)), '\n')) // it closes now in any case
		return
	}
	h.problem(w, r, errs.From(err))
}

func streamHeaders(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
}

func (h *Handler) request(r *http.Request) (resume.Request, error) {
	token := auth.Bearer(r.Header.Get("Authorization"))
	if token == "" {
		token = r.URL.Query().Get(paramToken)
	}
	if token == "" {
		return resume.Request{}, auth.ErrMissing()
	}
	p, err := Authorize(r.Context(), h.Verifier, token)
	if err != nil {
		return resume.Request{}, err
	}
	filter, last, err := query(r)
	if err != nil {
		return resume.Request{}, err
	}
	return resume.Request{Org: p.OrgID, Who: IdentityOf(p), Expires: p.ExpiresAt, Filter: filter, Last: last}, nil
}

// IdentityOf is what the hub knows a caller by.
func IdentityOf(p auth.Principal) hub.Identity {
	who := hub.Identity{Subject: p.Subject, Session: p.SessionID, IssuedAt: p.IssuedAt}
	if p.UserID != nil {
		who.UserID = *p.UserID
	}
	return who
}

// Authorize verifies a token for a stream: it must have time left, of which a verifier's leeway gives
// none, and the scope events:read.
func Authorize(ctx context.Context, v Verifier, token string) (auth.Principal, error) {
	p, err := v.Verify(ctx, token)
	switch {
	case err != nil:
		return p, err
	case !p.ExpiresAt.After(time.Now()):
		return p, errs.New(errs.Unauthenticated, "TOKEN_EXPIRED", "the access token has expired")
	case !p.Scopes.Has(auth.EventsRead):
		return p, errs.New(errs.PermissionDenied, "SCOPE_MISSING", "the token lacks the scope "+auth.EventsRead).WithMeta("scope", auth.EventsRead)
	}
	return p, nil
}

// cors lets pages of other origins read the stream. Tokens travel in a header or the URL, never in
// cookies, so no credentials are allowed and "*" is safe.
func (h *Handler) cors(w http.ResponseWriter, r *http.Request) {
	origin := r.Header.Get("Origin")
	if origin == "" || len(h.Origins) == 0 {
		return
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	if !slices.Contains(h.Origins, "*") && !slices.Contains(h.Origins, origin) {
		return
	}
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")
	if r.Method == http.MethodOptions {
		header.Set("Access-Control-Allow-Methods", "GET")
		header.Set("Access-Control-Allow-Headers", strings.Join([]string{"Authorization", "Cache-Control", headerLast, "X-Request-Id", "Traceparent"}, ", "))
		header.Set("Access-Control-Max-Age", "7200")
	}
}

// ParseOrigins reads CORS_ORIGINS: "*", or origins (RFC 6454) separated by commas. It reports the
// first that is none.
func ParseOrigins(s string) (origins []string, wrong string) {
	for o := range strings.SplitSeq(s, ",") {
		o = strings.TrimSpace(o)
		u, err := url.Parse(o)
		switch {
		case o == "":
		case o == "*", err == nil && u.Host != "" && u.Scheme+"://"+u.Host == o:
			origins = append(origins, o)
		default:
			return nil, o
		}
	}
	return origins, ""
}
