package app

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/lifecycletest"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/services/api-gateway/internal/rest"
)

func environment(t *testing.T, url string) map[string]string {
	signing, public, err := auth.GenerateKey("k")
	require.NoError(t, err)
	return map[string]string{"DATABASE_URL": url, "INTERNAL_TOKEN": "0123456789abcdef", "TOKEN_SIGNING_KEY": signing, "TOKEN_PUBLIC_KEYS": public, "REDIS_URL": "redis://127.0.0.1:1",
		"HTTP_ADDR": "127.0.0.1:0", "GRPC_ADDR": "127.0.0.1:0", "OPS_ADDR": "127.0.0.1:0"}
}

func run(ctx context.Context, env map[string]string, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = Run(ctx, Process{Args: args, Getenv: func(k string) string { return env[k] }, In: strings.NewReader(""), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func TestRunEndsCleanly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as a signal would, right after the start
	code, _, errs := run(ctx, environment(t, database(t).URLAs(t, "sametick_api")))
	require.Zero(t, code, errs)
}

func TestRunRefuses(t *testing.T) {
	env := environment(t, "postgres://127.0.0.1:1/x")
	code, _, text := run(t.Context(), map[string]string{})
	require.Equal(t, 1, code)
	for name := range env {
		if !strings.HasSuffix(name, "_ADDR") && name != "REDIS_URL" {
			require.Contains(t, text, name, "every missing variable at once")
		}
	}
	bad := maps.Clone(env)
	delete(bad, "REDIS_URL")
	bad["TOKEN_SIGNING_KEY"], bad["SSE_URL"], bad["ACCESS_TOKEN_TTL"], bad["STREAM_SILENCE"] = "k:c2VjcmV0", "nonsense", "1s", "1ms"
	code, _, text = run(t.Context(), bad)
	require.Equal(t, 1, code)
	require.Contains(t, text, "SSE_URL")
	require.Contains(t, text, "STREAM_SILENCE")
	require.Contains(t, text, "REDIS_URL", "limits are on unless they are turned off")
	require.Contains(t, text, "ACCESS_TOKEN_TTL")
	require.NotContains(t, text, "c2VjcmV0")

	for issuer, fine := range map[string]bool{"http://id.example.com": false, "http://127.0.0.1.example.com": false, "http://10.0.0.1": false,
		"https://id.example.com": true, "http://localhost:8080": true, "http://127.0.0.2": true, "http://[::1]:8080": true} {
		c := defaults()
		c.OIDCIssuer, c.OIDCAudience, c.OIDCOrg = issuer, "sametick", 1
		problem := slices.ContainsFunc(c.Validate(), func(p config.Problem) bool { return p.Name == "OIDC_ISSUER" })
		require.Equal(t, fine, !problem, "who can change %s's answers on their way says who calls", issuer)
	}

	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	env["HTTP_ADDR"] = taken.Addr().String()
	code, _, text = run(t.Context(), env)
	require.Equal(t, 1, code)
	require.Contains(t, text, taken.Addr().String())

	code, _, text = run(t.Context(), env, "dance")
	require.Equal(t, 2, code)
	require.Contains(t, text, "usage")
	code, text, _ = run(t.Context(), env, "--help")
	require.Zero(t, code)
	require.Contains(t, text, "TOKEN_PUBLIC_KEYS")
}

func TestMigrateTwice(t *testing.T) {
	db := pgtest.New(t)
	for range 2 {
		code, _, text := run(t.Context(), map[string]string{"DATABASE_URL": db.URL}, "migrate")
		require.Zero(t, code, text)
	}
}

func TestReadiness(t *testing.T) {
	s := start(t, nil)
	status := func() (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.g.ops.Addr()+"/readyz", nil)
		require.NoError(t, err)
		a := s.do(req)
		return a.status, a.text
	}
	code, text := status()
	require.Equal(t, http.StatusOK, code, text)
	health, err := grpc_health_v1.NewHealthClient(s.conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, health.GetStatus())
	for _, table := range []string{"schema_api", "schema_core"} {
		_, err = s.admin.Exec(t.Context(), "CREATE TEMP TABLE kept AS TABLE sametick."+table+"; UPDATE sametick."+table+" SET version_id = 0")
		require.NoError(t, err)
		code, text = status()
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Contains(t, text, "run its migrate subcommand")
		_, err = s.admin.Exec(t.Context(), "UPDATE sametick."+table+" t SET version_id = k.version_id FROM kept k WHERE k.id = t.id; DROP TABLE kept")
		require.NoError(t, err)
	}
	code, text = status()
	require.Equal(t, http.StatusOK, code, text)
}

// upstream is an sse-gateway that shows what reaches it and then streams until its client goes.
func upstream(t *testing.T) (*httptest.Server, chan *http.Request) {
	seen := make(chan *http.Request, 16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, ": heartbeat\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server, seen
}

func TestStream(t *testing.T) {
	server, seen := upstream(t)
	s := start(t, func(c *Config) { c.SSEURL = server.URL; c.ShutdownGrace = 300 * time.Millisecond })
	open := func(query, header string) (*http.Response, *http.Request) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/api/events/stream"+query, nil)
		require.NoError(t, err)
		if header != "" {
			req.Header.Set("Authorization", header)
		}
		req.Header.Set("Last-Event-ID", "7")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, res.StatusCode)
		b := make([]byte, len(": heartbeat\n\n"))
		_, err = io.ReadFull(res.Body, b) // arrives while the stream goes on: nothing is buffered
		require.NoError(t, err)
		return res, <-seen
	}
	v, err := auth.NewVerifier(s.g.config.PublicKeys)
	require.NoError(t, err)
	user, _, err := s.signer.Sign(auth.Principal{OrgID: 5, Subject: "user:1", Scopes: auth.ScopesOf(auth.EventsRead)}, time.Hour)
	require.NoError(t, err)
	for _, c := range []struct{ query, header string }{
		{"?token=" + s.a.APIKey + "&event_type=task.*&event_type=*.post_create", ""}, {"?event_type=task.*&event_type=*.post_create", "Bearer " + s.a.APIKey},
	} {
		res, got := open(c.query, c.header)
		p, err := v.Verify(t.Context(), auth.Bearer(got.Header.Get("Authorization")))
		require.NoError(t, err, "a key has become an access token")
		require.Equal(t, s.a.OrgID, p.OrgID)
		require.Equal(t, []string{"task.*", "*.post_create"}, got.URL.Query()["event_type"])
		require.False(t, got.URL.Query().Has("token"))
		require.Equal(t, "7", got.Header.Get("Last-Event-ID"))
		require.Equal(t, []string{res.Header.Get("X-Request-Id")}, res.Header.Values("X-Request-Id"))
		require.NoError(t, res.Body.Close())
	}
	res, got := open("?token="+user, "")
	require.Equal(t, "Bearer "+user, got.Header.Get("Authorization"))
	require.NotContains(t, got.URL.String(), user)
	require.NotContains(t, s.log.String(), user)

	a := s.call("GET", "/api/events/stream?token=stk_"+strings.Repeat("x", 43), "-", "")
	require.Equal(t, "TOKEN_INVALID", a.problem(t).Reason)
	for i := len(s.g.parts) - 1; i >= 0; i-- {
		s.stop(s.g.parts[i]) // does not wait for the open stream's client
	}
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(t, err, "ended, not broken off: clients come back after either")
	require.NoError(t, res.Body.Close())
	http.DefaultClient.CloseIdleConnections()
}

// HEAD goes to sse-gateway as HEAD, with the token as GET has it, and ends at once.
func TestStreamHead(t *testing.T) {
	seen := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.Header().Set("Content-Type", "text/event-stream")
	}))
	t.Cleanup(server.Close)
	s := start(t, func(c *Config) { c.SSEURL = server.URL })
	a := s.call("HEAD", "/api/events/stream?token="+s.session().AccessToken, "-", "")
	require.Equal(t, http.StatusOK, a.status)
	require.Equal(t, "text/event-stream", a.header.Get("Content-Type"))
	got := <-seen
	require.Equal(t, http.MethodHead, got.Method)
	require.NotEmpty(t, got.Header.Get("Authorization"))
	require.Empty(t, got.URL.RawQuery)
	require.Equal(t, http.StatusUnauthorized, s.call("HEAD", "/api/events/stream", "stk_"+strings.Repeat("x", 43), "").status)
}

func TestStreamUnavailable(t *testing.T) {
	s := start(t, nil)
	token := s.session().AccessToken
	a := s.call("GET", "/api/events/stream?token="+token, "-", "")
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Equal(t, "STREAM_UNAVAILABLE", a.problem(t).Reason)
	require.NotContains(t, s.log.String(), token)
}

func TestComponents(t *testing.T) {
	lifecycletest.Stress(t, func() lifecycle.Component {
		return rest.NewStreams(http.NotFoundHandler(), 0, slog.New(slog.DiscardHandler))
	})
	lifecycletest.Stress(t, func() lifecycle.Component {
		return newFront(func() string { return "[::]:1" }, rest.Options{}, rpc.ClientOptions{})
	})
}

// TestOrigin: the audit log has the client's address and agent, and believes neither a stranger's
// X-Forwarded-For nor a stranger's metadata.
func TestOrigin(t *testing.T) {
	s := start(t, nil)
	last := func() (ip, agent, request string) {
		require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT host(ip), user_agent, request_id FROM sametick.audit_entries WHERE aggregate_type = 'task' ORDER BY id DESC LIMIT 1`).
			Scan(&ip, &agent, &request))
		return ip, agent, request
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+create, strings.NewReader(`{"name":"x"}`))
	require.NoError(t, err)
	for k, v := range map[string]string{"Authorization": "Bearer " + s.a.APIKey, "User-Agent": "spec/1", "X-Request-Id": "r-77", "X-Forwarded-For": "6.6.6.6",
		"Grpc-Metadata-Sametick-Client-Ip": "6.6.6.6", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} {
		req.Header.Set(k, v)
	}
	a := s.do(req)
	require.Equal(t, http.StatusOK, a.status, a.text)
	require.Equal(t, "r-77", a.header.Get("X-Request-Id"))
	ip, agent, request := last()
	require.Equal(t, []string{"127.0.0.1", "spec/1", "r-77"}, []string{ip, agent, request})
	var trace string
	require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT trace_context FROM sametick.events ORDER BY id DESC LIMIT 1`).Scan(&trace))
	require.Contains(t, trace, "0af7651916cd43dd8448eb211c80319c")
}
