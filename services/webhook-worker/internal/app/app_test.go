package app_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/stream/streamtest"
	"github.com/sametick/sametick/pkg/telemetry"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	"github.com/sametick/sametick/services/webhook-worker/internal/app"
	"github.com/sametick/sametick/services/webhook-worker/internal/workertest"
)

func TestMain(m *testing.M) { workertest.Main(m) }

const token = "0123456789abcdef0123456789abcdef"

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// service is a running worker, with a position log that the test writes.
type service struct {
	db        *pgtest.DB
	log       *streamtest.Log
	publisher *streamtest.Publisher
	client    webhooksv1.WebhookServiceClient
	ops       string
	keys      string
	woken     atomic.Int64
	out       buffer
	stop      func() int
}

// relay counts what wakes it.
type relay struct {
	relayv1.UnimplementedRelayServiceServer
	woken *atomic.Int64
}

func (r relay) Wake(context.Context, *relayv1.WakeRequest) (*relayv1.WakeResponse, error) {
	r.woken.Add(1)
	return &relayv1.WakeResponse{}, nil
}

func start(t *testing.T) *service { return startWith(t, nil) }

// startWith is start with more in the environment.
func startWith(t *testing.T, more map[string]string) *service {
	s := &service{db: workertest.Database(t), log: streamtest.NewLog(), keys: keyring.Generate("one")}
	redis := redistest.New(t)
	s.publisher = streamtest.NewPublisher(t, s.log, redis.URL, redis)
	server := rpc.NewServer(rpc.ServerOptions{Addr: "127.0.0.1:0", Log: telemetry.NewLogger(io.Discard, "relay", nil), Registry: prometheus.NewRegistry(),
		Register: func(r grpc.ServiceRegistrar) {
			s.log.Register(r)
			relayv1.RegisterRelayServiceServer(r, relay{woken: &s.woken})
		}})
	require.NoError(t, server.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, server.Stop(context.WithoutCancel(t.Context()))) })
	api := freeAddr(t) // and the next one: late, as connections made meanwhile may be given the port
	s.ops = freeAddr(t)
	env := map[string]string{
		"DATABASE_URL": s.db.URLAs(t, workertest.Role), "REDIS_URL": redis.URL, "INTERNAL_TOKEN": token, "GRPC_ADDR": api, "OPS_ADDR": s.ops,
		"RELAY_ADDR": server.Addr(), "ENCRYPTION_KEYS": s.keys, "EGRESS_ALLOW": "127.0.0.1", "EGRESS_HTTP": "true",
	}
	maps.Copy(env, more)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	code := make(chan int, 1)
	go func() { code <- app.Run(ctx, nil, func(k string) string { return env[k] }, &s.out) }()
	s.stop = sync.OnceValue(func() int { cancel(); return <-code })
	t.Cleanup(func() {
		if got := s.stop(); got != 0 || t.Failed() {
			t.Errorf("ended with %d:\n%s", got, s.out.String())
		}
	})
	conn, err := rpc.Dial(api, rpc.ClientOptions{Token: token})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	s.client = webhooksv1.NewWebhookServiceClient(conn)
	eventually(t, "ready", func() bool { code, _ := s.get("/readyz"); return code == http.StatusOK })
	return s
}

func (s *service) get(path string) (int, string) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + s.ops + path)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, 30*time.Second, 20*time.Millisecond, what)
}

func caller(ctx context.Context) context.Context {
	return rpc.WithCaller(ctx, rpc.Caller{OrgID: 1, Subject: "user:7", Scopes: auth.WebhooksManage})
}

// A receiver that nobody here wrote accepts what comes of an event, and the metrics tell of it; secrets are sealed anew.
func TestFromEventToReceiver(t *testing.T) {
	t.Parallel()
	s := start(t)
	type request struct {
		header http.Header
		body   []byte
	}
	got := make(chan request, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- request{r.Header, body}
	}))
	t.Cleanup(receiver.Close)
	made, err := s.client.CreateEndpoint(caller(t.Context()), &webhooksv1.CreateEndpointRequest{Url: receiver.URL + "/hook"})
	require.NoError(t, err)
	for end := time.Now().Add(30 * time.Second); s.woken.Load() == 0; { // a hint may be lost
		require.True(t, time.Now().Before(end), "the relay is not woken")
		_, err := s.client.DisableEndpoint(caller(t.Context()), &webhooksv1.DisableEndpointRequest{Id: made.GetEndpoint().GetId()})
		require.NoError(t, err)
		_, err = s.client.EnableEndpoint(caller(t.Context()), &webhooksv1.EnableEndpointRequest{Id: made.GetEndpoint().GetId()})
		require.NoError(t, err)
	}
	id := made.GetEndpoint().GetId()
	s.log.Append(1, "webhook_endpoint", "post_create", id, "")
	e := s.log.Append(1, "task", "post_create", 1, "Call the client")
	require.NoError(t, s.publisher.Publish(t.Context()))
	r := <-got
	verifier, err := standardwebhooks.NewWebhook(made.GetSecret())
	require.NoError(t, err)
	require.NoError(t, verifier.Verify(r.body, r.header))
	require.Contains(t, string(r.body), `{"type":"task.post_create","timestamp":"2026-04-12T14:30:00.000Z","data":{"id":`)
	require.Equal(t, strings.Split(e.Traceparent, "-")[1], strings.Split(r.header.Get("Traceparent"), "-")[1], "the event's trace goes on")
	eventually(t, "counted", func() bool {
		_, text := s.get("/metrics")
		return strings.Contains(text, `sametick_webhooks_attempts_total{cause="",outcome="delivered"} 1`) &&
			strings.Contains(text, `sametick_webhooks_connections_total{reused="false"} 1`) && strings.Contains(text, "sametick_webhooks_shards 16") &&
			strings.Contains(text, "sametick_webhooks_scheduled_total 1") && strings.Contains(text, "sametick_webhooks_attempt_seconds_count 1")
	})
	require.Equal(t, 0, s.stop(), s.out.String())

	keys := keyring.Generate("two") + "," + s.keys
	env := map[string]string{"DATABASE_URL": s.db.URLAs(t, workertest.Role), "ENCRYPTION_KEYS": keys}
	var out bytes.Buffer
	for _, sealed := range []string{`"secrets":1`, `"secrets":0`} {
		out.Reset()
		require.Equal(t, 0, app.Run(t.Context(), []string{"re-encrypt"}, func(k string) string { return env[k] }, &out), out.String())
		require.Contains(t, out.String(), sealed)
	}
	env["ENCRYPTION_KEYS"] = s.keys // the new key is missing
	require.Equal(t, 1, app.Run(t.Context(), []string{"re-encrypt"}, func(k string) string { return env[k] }, &out))
}

func TestUsage(t *testing.T) {
	t.Parallel()
	run := func(env map[string]string, args ...string) (int, string) {
		var out bytes.Buffer
		code := app.Run(t.Context(), args, func(k string) string { return env[k] }, &out)
		return code, out.String()
	}
	code, text := run(nil, "--help")
	require.Equal(t, 0, code)
	require.Contains(t, text, "LEASE_TTL")
	code, text = run(nil, "deliver")
	require.Equal(t, 2, code)
	require.Contains(t, text, `no command "deliver"`)
	env := map[string]string{"DATABASE_URL": "postgres://a:hunter2@b/c", "REDIS_URL": "redis://b", "INTERNAL_TOKEN": token, "ENCRYPTION_KEYS": keyring.Generate("a"),
		"LEASE_TTL": "20s", "MAX_IN_FLIGHT": "0"}
	code, text = run(env)
	require.Equal(t, 2, code)
	require.Contains(t, text, "LEASE_TTL is too short")
	require.Contains(t, text, "MAX_IN_FLIGHT is too small")
	require.NotContains(t, text, "hunter2")
}
