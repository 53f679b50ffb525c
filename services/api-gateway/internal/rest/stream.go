package rest

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/telemetry"
)

// Exchanger gives an access token for whatever token opens a stream; empty for none.
type Exchanger interface {
	StreamToken(ctx context.Context, token string) (string, error)
}

// StreamLimits end a stream that hangs: its client connects again and resumes.
type StreamLimits struct {
	// Silence is how long sse-gateway may send nothing, not even a heartbeat. EventSource itself waits for ever.
	Silence time.Duration
	// Write is how long the client may take nothing of what there is for it.
	Write time.Duration
}

// NewStream makes the way to sse-gateway: nothing is buffered, and the token travels on in a header
// alone, so that no log of a URL can show it. It is checked, and exchanged where need be, on the way, because
// sse-gateway asks nobody whose a token is. transport is closed by the caller.
func NewStream(target *url.URL, keys Exchanger, transport http.RoundTripper, limits StreamLimits, log *slog.Logger) http.Handler {
	p := &problems{log: log}
	proxy := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.URL.Path, r.Out.URL.RawPath = streamPath, ""
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
			r.Out.Header.Set("X-Request-Id", telemetry.RequestID(r.In.Context()))
		},
		// The request id is on the answer already.
		ModifyResponse: func(res *http.Response) error {
			res.Header.Del("X-Request-Id")
			res.Body = endsCleanly{listen(res.Body, limits.Silence), res.Request.Context()}
			return nil
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				log.WarnContext(r.Context(), "event stream unreachable", "error", err)
			}
			p.write(w, r, errs.New(errs.Unavailable, "STREAM_UNAVAILABLE", "the event stream is temporarily unavailable").WithCause(err))
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := withToken(r, keys)
		if err != nil {
			p.write(w, r, errs.From(err))
			return
		}
		proxy.ServeHTTP(&punctual{w, http.NewResponseController(w), limits.Write}, out)
	})
}

// withToken moves the token to the Authorization header; a header goes before the parameter.
func withToken(r *http.Request, keys Exchanger) (*http.Request, error) {
	out := r.Clone(r.Context())
	out.Body, out.ContentLength = http.NoBody, 0
	query := r.URL.Query()
	token := auth.Bearer(r.Header.Get("Authorization"))
	if token == "" {
		token = query.Get("token")
	}
	query.Del("token")
	out.URL.RawQuery = query.Encode()
	token, err := keys.StreamToken(r.Context(), token)
	if err != nil {
		return nil, err
	}
	out.Header.Del("Authorization")
	if token != "" {
		out.Header.Set("Authorization", "Bearer "+token)
	}
	return out, nil
}
