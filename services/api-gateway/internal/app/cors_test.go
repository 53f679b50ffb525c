package app

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/redistest"
)

// A page of an allowed origin may call every route and read what an answer says of itself; one of another origin
// gets an answer that its browser keeps from it.
func TestCORS(t *testing.T) {
	const app, other = "https://app.example.com", "https://evil.example.com"
	redis := redistest.New(t).URL
	s := start(t, nil)
	require.Empty(t, s.cross("GET", "/api/types", app, nil).header.Get("Access-Control-Allow-Origin"), "nobody may unless it is said")

	s = start(t, func(c *Config) {
		c.RedisURL, c.RateLimitOrg, c.RateLimitTimeout, c.CORSOrigins = config.NewSecret(redis), 1000, 10*time.Second, []string{app}
	}).connected()
	var record wireRecord
	s.ok("POST", create, `{"name":"x"}`, &record)
	for _, c := range []struct{ method, path string }{{"GET", "/api/types"}, {"GET", "/api/types/nothing"}, {"POST", "/api/records/task:export"}, {"HEAD", "/api/types"}} {
		a := s.cross(c.method, c.path, app, nil)
		require.Equal(t, []string{app}, a.header.Values("Access-Control-Allow-Origin"), c.path)
		require.Contains(t, a.header.Values("Vary"), "Origin", c.path)
		require.Empty(t, a.header.Get("Access-Control-Allow-Credentials"), "no cookie has a part in this")
		exposed := strings.Split(strings.ToLower(a.header.Get("Access-Control-Expose-Headers")), ", ")
		require.Subset(t, exposed, []string{"x-request-id", "etag", "retry-after", "idempotency-replayed", "content-disposition",
			"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}, c.path)
		require.NotEmpty(t, a.header.Get("RateLimit-Remaining"), "%s: what is exposed is there", c.path)

		a = s.cross(c.method, c.path, other, nil)
		require.Empty(t, a.header.Values("Access-Control-Allow-Origin"), c.path)
		require.Contains(t, a.header.Values("Vary"), "Origin", "%s: no cache may give it to the other", c.path)
	}

	preflight := func(origin, method, headers string) http.Header {
		a := s.cross("OPTIONS", "/api/records/task/7", origin, map[string]string{"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers})
		require.Empty(t, a.text)
		return a.header
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PATCH", "DELETE"} {
		h := preflight(app, method, "authorization,content-type,idempotency-key,if-match,x-request-id")
		require.Equal(t, app, h.Get("Access-Control-Allow-Origin"), method)
		require.Equal(t, method, h.Get("Access-Control-Allow-Methods"))
		require.Equal(t, "authorization,content-type,idempotency-key,if-match,x-request-id", h.Get("Access-Control-Allow-Headers"), method)
		require.Equal(t, "7200", h.Get("Access-Control-Max-Age"), method)
		require.Empty(t, preflight(other, method, "authorization").Get("Access-Control-Allow-Origin"), method)
	}
	require.Empty(t, preflight(app, "TRACE", "").Get("Access-Control-Allow-Methods"))
	require.Empty(t, preflight(app, "GET", "x-anything").Get("Access-Control-Allow-Headers"))
}

// cross is a call by a page of an origin.
func (s *suite) cross(method, path, origin string, header map[string]string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, nil)
	require.NoError(s.t, err)
	req.Header.Set("Origin", origin)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	if method != http.MethodOptions {
		req.Header.Set("Authorization", "Bearer "+s.a.APIKey)
	}
	return s.do(req)
}
