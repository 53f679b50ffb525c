package app

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/telemetry"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
)

// limited runs the service with limits of calls per second in a Redis of its own, for which a busy machine may keep it
// waiting.
func limited(t *testing.T, redisURL string, org, caller int) *suite {
	t.Helper()
	return limitedBriefly(t, redisURL, org, caller, 10*time.Second)
}

func limitedBriefly(t *testing.T, redisURL string, org, caller int, timeout time.Duration) *suite {
	t.Helper()
	return start(t, func(c *Config) {
		c.RedisURL, c.RateLimitOrg, c.RateLimitCaller, c.RateLimitTimeout = config.NewSecret(redisURL), org, caller, timeout
	})
}

// connected waits until the service has found Redis: only then it counts.
func (s *suite) connected() *suite {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.counter("connected") == 1 }, 20*time.Second, 5*time.Millisecond)
	return s
}

func (s *suite) counter(name string) float64 {
	for _, part := range s.g.parts {
		if l, ok := part.(*limits); ok {
			switch {
			case name == "unknown":
				return testutil.ToFloat64(l.unknown)
			case name == "connected" && l.leases.Load() != nil:
				return 1
			case name == "connected":
				return 0
			default:
				return testutil.ToFloat64(l.refused.WithLabelValues(name))
			}
		}
	}
	s.t.Fatal("no limits here")
	return 0
}

// until calls until it is refused for its rate, which must be soon.
func (s *suite) until(url, token string) (passed int, refused answer) {
	s.t.Helper()
	for passed = range 200 {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, url+"/api/types", nil)
		require.NoError(s.t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		if refused = s.do(req); refused.status != http.StatusOK {
			return passed, refused
		}
		require.Equal(s.t, 1, len(refused.header.Values("RateLimit-Remaining")), refused.header)
	}
	s.t.Fatal("200 calls passed")
	return 0, answer{}
}

func TestRateLimitOfCaller(t *testing.T) {
	s := limited(t, redistest.New(t).URL, 1000, 1).connected()
	first := s.call("GET", "/api/types", "", "")
	require.Equal(t, "2", first.header.Get("RateLimit-Limit"))
	require.Equal(t, "1", first.header.Get("RateLimit-Remaining"))
	require.Equal(t, "1", first.header.Get("RateLimit-Reset"))

	_, a := s.until(s.url, s.a.APIKey)
	require.Equal(t, http.StatusTooManyRequests, a.status)
	p := a.problem(t)
	require.Equal(t, "RATE_LIMITED", p.Reason)
	require.Equal(t, map[string]string{"limit": "caller"}, p.Metadata)
	require.Equal(t, "1", a.header.Get("Retry-After"))
	require.Equal(t, "2", a.header.Get("RateLimit-Limit"))
	require.Equal(t, "0", a.header.Get("RateLimit-Remaining"))
	require.Equal(t, "2", a.header.Get("RateLimit-Reset"))
	require.GreaterOrEqual(t, s.counter(ofCaller), 1.0)

	require.Equal(t, http.StatusOK, s.call("GET", "/api/types", s.session().AccessToken, "").status, "the user is another caller than their key")
	require.Equal(t, http.StatusOK, s.call("GET", "/api/types", s.b.APIKey, "").status)
	require.Equal(t, http.StatusUnauthorized, s.call("GET", "/api/types", "nobody", "").status)
	require.Empty(t, s.call("GET", "/api/auth/jwks.json", "-", "").header.Get("RateLimit-Limit"), "nobody's call")
}

// Both doors, and every replica, take from the same budget.
func TestRateLimitIsShared(t *testing.T) {
	s := limited(t, redistest.New(t).URL, 2, 0).connected()
	other := s.replica()
	for try := range 50 {
		s.until(s.url, s.a.APIKey)
		var header metadata.MD
		_, err := recordsv1.NewRecordServiceClient(s.conn).ListRecords(as(t.Context(), s.a.APIKey), &recordsv1.ListRecordsRequest{Type: "task"}, grpc.Header(&header))
		passed, _ := s.until(other, s.a.APIKey)
		if (err == nil || passed > 0) && try < 49 { // half a second has gone by, and given a call
			continue
		}
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		require.Equal(t, "RATE_LIMITED", errs.From(err).Reason)
		require.Equal(t, map[string]string{"limit": "organization"}, errs.From(err).Meta)
		require.Positive(t, errs.From(err).RetryAfter)
		require.Equal(t, []string{"4"}, header.Get("ratelimit-limit"))
		require.Equal(t, []string{"0"}, header.Get("ratelimit-remaining"))
		require.Zero(t, passed)
		return
	}
}

// replica starts the same service once more, and gives its address.
func (s *suite) replica() string {
	s.t.Helper()
	tracing, err := telemetry.NewTracing(s.t.Context(), service, func(string) string { return "" })
	require.NoError(s.t, err)
	g, err := assemble(s.t.Context(), s.g.config, s.g.log, tracing)
	require.NoError(s.t, err)
	other := &suite{t: s.t, g: g}
	for _, part := range g.parts {
		require.NoError(s.t, part.Start(s.t.Context()))
		s.t.Cleanup(func() { s.stop(part) })
	}
	other.connected()
	return "http://" + g.http.Addr()
}

// Exports are calls too: they say what is left, and are refused when nothing is.
func TestRateLimitOfStreams(t *testing.T) {
	s := limited(t, redistest.New(t).URL, 0, 1).connected()
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/api/records/task:export", 200}, {"POST", "/api/records/nothing:export", 400}, {"GET", "/api/audit/export", 200},
		{"GET", "/api/audit/export?outcome=nonsense", 400}, {"GET", "/api/records/task/7", 404},
	} {
		var seen []int
		for try := 0; len(seen) < 2 && try < 20_000; try++ {
			a := s.call(c.method, c.path, "", "")
			require.Contains(t, []int{c.status, http.StatusTooManyRequests}, a.status, a.text)
			require.Equal(t, "2", a.header.Get("RateLimit-Limit"), c.path)
			require.NotEmpty(t, a.header.Get("RateLimit-Remaining"), c.path)
			if !slices.Contains(seen, a.status) {
				seen = append(seen, a.status)
			}
		}
		require.Len(t, seen, 2, "%s passes, and is refused", c.path)
	}
}

// Without Redis every call passes, after a moment at most, and is counted as one that nobody counted.
func TestRateLimitsWithoutRedis(t *testing.T) {
	server := redistest.New(t)
	s := limitedBriefly(t, server.URL, 1, 1, 500*time.Millisecond).connected()
	s.until(s.url, s.a.APIKey)
	for _, c := range []struct {
		name       string
		stop, back func() error
	}{{"frozen", server.Pause, server.Continue}, {"dead", server.Kill, func() error { return server.Start(t.Context()) }}} {
		require.NoError(t, c.stop(), c.name)
		before := s.counter("unknown")
		begin := time.Now()
		for range 20 {
			a := s.call("GET", "/api/types", "", "")
			require.Equal(t, http.StatusOK, a.status, c.name)
			require.Empty(t, a.header.Get("RateLimit-Limit"), c.name)
		}
		require.Less(t, time.Since(begin), 10*time.Second, "%s: only the first waits", c.name)
		require.Equal(t, 20.0, s.counter("unknown")-before, c.name)
		require.NoError(t, c.back(), c.name)
		require.Eventually(t, func() bool { return s.call("GET", "/api/types", "", "").status == http.StatusTooManyRequests },
			30*time.Second, time.Millisecond, c.name)
	}
}

func TestStartsWithoutRedis(t *testing.T) {
	s := limited(t, "redis://127.0.0.1:1", 1, 1)
	for range 10 {
		require.Equal(t, http.StatusOK, s.call("GET", "/api/types", "", "").status)
	}
	require.Equal(t, 10.0, s.counter("unknown"))
}

func TestRateLimitSettings(t *testing.T) {
	for _, c := range []struct {
		redis       string
		org, caller int
		problem     string
	}{
		{"", 0, 0, ""},
		{"redis://h:1", 1, maxRate, ""},
		{"", 0, 1, "REDIS_URL"},
		{"nonsense", 1, 0, "REDIS_URL"},
		{"redis://h:1", -1, 0, "RATE_LIMIT_ORG"},
		{"redis://h:1", 0, maxRate + 1, "RATE_LIMIT_CALLER"},
	} {
		conf := Config{RedisURL: config.NewSecret(c.redis), RateLimitOrg: c.org, RateLimitCaller: c.caller}
		var names []string
		for _, p := range conf.checkLimits() {
			names = append(names, p.Name)
		}
		require.Equal(t, c.problem, strings.Join(names, " "), "%+v", c)
	}
}
