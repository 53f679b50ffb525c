package rest

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// A browser takes any status but 200 as the end for good; others get a problem.
func TestAStoppingReplicaSendsClientsOn(t *testing.T) {
	s := NewStreams(http.NotFoundHandler(), 0, slog.New(slog.DiscardHandler))
	require.NoError(t, s.Start(t.Context()))
	require.NoError(t, s.Stop(t.Context()))

	browser := httptest.NewRequest(http.MethodGet, streamPath, nil)
	browser.Header.Set("Sec-Fetch-Mode", "cors")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, browser)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "text/event-stream", w.Header().Get("Content-Type"))
	require.Regexp(t, `^retry: \d{4}\n\n$`, w.Body.String())

	w = httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, streamPath, nil))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Contains(t, w.Body.String(), "SHUTTING_DOWN")
}

func TestPagesOfOtherOrigins(t *testing.T) {
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" { // as sse-gateway does
			w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		}
	})
	call := func(h http.Handler, method, origin string) http.Header {
		r := httptest.NewRequest(method, "/api/events", nil)
		r.Header.Set("Origin", origin)
		if method == http.MethodOptions {
			r.Header.Set("Access-Control-Request-Method", http.MethodGet)
			r.Header.Set("Access-Control-Request-Headers", "authorization")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Header()
	}
	some := WithCORS(api, []string{"https://app.example.com"})
	for _, method := range []string{http.MethodGet, http.MethodOptions} {
		require.Equal(t, []string{"https://app.example.com"}, call(some, method, "https://app.example.com").Values("Access-Control-Allow-Origin"), method)
		require.Empty(t, call(some, method, "https://evil.example.com").Values("Access-Control-Allow-Origin"), method)
		require.Equal(t, []string{"*"}, call(WithCORS(api, []string{"*"}), method, "https://x.example.com").Values("Access-Control-Allow-Origin"), method)
	}
	require.Equal(t, "authorization", call(some, http.MethodOptions, "https://app.example.com").Get("Access-Control-Allow-Headers"))
}
