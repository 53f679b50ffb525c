package app_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/devstack"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/stream/streamtest"
	"github.com/sametick/sametick/pkg/telemetry"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	streamv1 "github.com/sametick/sametick/proto/gen/go/sametick/stream/v1"
	"github.com/sametick/sametick/services/sse-gateway/internal/app"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const internalToken = "0123456789abcdef0123456789abcdef"

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// suite is what the gateway stands on: Redis, LogService, and api-gateway's exchange of keys.
type suite struct {
	identityv1.UnimplementedIdentityServiceServer
	t      *testing.T
	log    *streamtest.Log
	redis  *devstack.Redis
	pub    *streamtest.Publisher
	signer *auth.Signer
	public string
	relay  string
	org    int64
}

func newSuite(t *testing.T) *suite {
	s := &suite{t: t, log: streamtest.NewLog(), redis: redistest.New(t), org: 42}
	s.pub = streamtest.NewPublisher(t, s.log, s.redis.URL, s.redis)
	signing, public, err := auth.GenerateKey("k1")
	require.NoError(t, err)
	s.signer, err = auth.ParseSigner(signing)
	require.NoError(t, err)
	s.public = public
	unary, stream := rpc.InternalAuth(internalToken, "sametick.relay.v1.LogService")
	srv := rpc.NewServer(rpc.ServerOptions{
		Addr: "127.0.0.1:0", Log: telemetry.NewLogger(io.Discard, "test", nil), Registry: prometheus.NewRegistry(),
		Unary: []grpc.UnaryServerInterceptor{unary}, Stream: []grpc.StreamServerInterceptor{stream},
		Register: func(r grpc.ServiceRegistrar) { s.log.Register(r); identityv1.RegisterIdentityServiceServer(r, s) },
	})
	require.NoError(t, srv.Start(t.Context()))
	s.relay = srv.Addr()
	t.Cleanup(func() { require.NoError(t, srv.Stop(context.WithoutCancel(t.Context()))) })
	return s
}

// ExchangeApiKey knows one key.
func (s *suite) ExchangeApiKey(_ context.Context, r *identityv1.ExchangeApiKeyRequest) (*identityv1.TokenResponse, error) { //nolint:revive // the generated name
	if r.GetSecret() != "stk_good" {
		return nil, errs.New(errs.Unauthenticated, "TOKEN_INVALID", "no such key")
	}
	return &identityv1.TokenResponse{AccessToken: s.token(time.Hour)}, nil
}

func (s *suite) token(ttl time.Duration) string {
	text, _, err := s.signer.Sign(auth.Principal{OrgID: s.org, Subject: "user:7", Scopes: auth.ScopesOf(auth.EventsRead)}, ttl)
	require.NoError(s.t, err)
	return text
}

func (s *suite) emit(n int) {
	for range n {
		s.log.Append(s.org, "task", "post_create", 5, "a \"name\"\n")
	}
	require.NoError(s.t, s.pub.Publish(context.WithoutCancel(s.t.Context())))
}

// gateway is a running gateway.
type gateway struct {
	http, grpc, ops string
	log             lockedBuffer
	stop            func() int
}

func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func (s *suite) start(extra ...string) *gateway {
	g := &gateway{http: freeAddr(s.t), grpc: freeAddr(s.t), ops: freeAddr(s.t)}
	env := map[string]string{
		"REDIS_URL": s.redis.URL, "INTERNAL_TOKEN": internalToken, "TOKEN_PUBLIC_KEYS": s.public, "RELAY_ADDR": s.relay,
		"API_ADDR": s.relay, "HTTP_ADDR": g.http, "GRPC_ADDR": g.grpc, "OPS_ADDR": g.ops, "DRAIN_PERIOD": "300ms", "RETRY": "10ms", "LOG_LEVEL": "debug",
	}
	for _, kv := range extra {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- app.Run(ctx, nil, func(k string) string { return env[k] }, &g.log) }()
	g.stop = sync.OnceValue(func() int { cancel(); return <-code })
	s.t.Cleanup(func() {
		if got := g.stop(); got != 0 {
			s.t.Errorf("exit code %d", got)
		}
		if s.t.Failed() {
			s.t.Logf("the gateway's log:\n%s", g.log.String())
		}
	})
	require.Eventually(s.t, func() bool { return g.probe("/readyz") == 200 }, 10*time.Second, 10*time.Millisecond)
	return g
}

func (g *gateway) probe(path string) int {
	status, _ := g.fetch("http://" + g.ops + path)
	return status
}

func (g *gateway) fetch(url string) (int, string) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	res, err := c.Get(url)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// tail reads ids until `until`, over as many connections as it takes, and gives them.
func (s *suite) tail(addr func() string, until int64) ([]string, error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	last, got := "0", []string{}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		req, err := http.NewRequest(http.MethodGet, "http://"+addr()+"/api/events/stream?token="+s.token(time.Hour), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Last-Event-ID", last)
		res, err := c.Do(req)
		if err != nil {
			continue // between two replicas
		}
		lines := bufio.NewScanner(res.Body)
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				last = id
			}
			if strings.HasPrefix(lines.Text(), "data: ") {
				got = append(got, last)
			}
			if last == fmt.Sprint(until) && lines.Text() == "" {
				_ = res.Body.Close()
				return got, nil
			}
		}
		_ = res.Body.Close()
	}
	return got, fmt.Errorf("ended at %s", last)
}

// Replicas are stopped one after the other under load: each exits 0 in its grace time, and clients
// lose nothing and see nothing twice.
func TestStopUnderLoad(t *testing.T) {
	s := newSuite(t)
	const events = 3000
	var mu sync.Mutex
	current := s.start()
	addr := func() string { mu.Lock(); defer mu.Unlock(); return current.http }
	type result struct {
		got []string
		err error
	}
	results := make(chan result, 20)
	for range cap(results) {
		go func() { got, err := s.tail(addr, events); results <- result{got, err} }()
	}
	for i := range 3 {
		s.emit(events / 6)
		next := s.start()
		old := current
		mu.Lock()
		current = next
		mu.Unlock()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range events / 60 {
				s.emit(10)
			}
		}()
		begin := time.Now()
		require.Zero(t, old.stop(), "replica %d", i)
		require.Less(t, time.Since(begin), 10*time.Second)
		<-done
	}
	for range cap(results) {
		r := <-results
		require.NoError(t, r.err)
		require.Len(t, r.got, events)
		for i, id := range r.got {
			require.Equal(t, fmt.Sprint(i+1), id)
		}
	}
}

func TestSubscribe(t *testing.T) {
	s := newSuite(t)
	g := s.start("HEARTBEAT_INTERVAL=200ms")
	conn, err := rpc.Dial(g.grpc, rpc.ClientOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	api := streamv1.NewStreamServiceClient(conn)
	subscribe := func(token string, r *streamv1.SubscribeRequest) grpc.ServerStreamingClient[streamv1.SubscribeResponse] {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), 20*time.Second)
		t.Cleanup(cancel)
		c, err := api.Subscribe(ctx, r)
		require.NoError(t, err)
		return c
	}
	s.emit(5)
	last := int64(2)
	c := subscribe("stk_good", &streamv1.SubscribeRequest{LastPosition: &last, EventTypes: []string{"task.*"}})
	m, err := c.Recv()
	require.NoError(t, err)
	require.EqualValues(t, 2, m.GetHeartbeat().GetPosition())
	for want := int64(3); want <= 5; want++ {
		m, err = c.Recv()
		require.NoError(t, err)
		require.Equal(t, want, m.GetDelivery().GetPosition())
		e := m.GetDelivery().GetEvent()
		require.Equal(t, "task.post_create", e.GetEventType())
		require.Equal(t, s.org, e.GetOrgId())
		require.JSONEq(t, `{"record_name": "a \"name\"\n"}`, e.GetPayload().GetText())
		require.Equal(t, time.Date(2026, 4, 12, 14, 30, 0, 0, time.UTC), e.GetOccurredAt().AsTime())
	}
	s.log.Append(s.org, "team", "post_create", 1, "filtered")
	require.NoError(t, s.pub.Publish(t.Context()))
	for m.GetHeartbeat().GetPosition() != 6 {
		m, err = c.Recv()
		require.NoError(t, err)
		require.Nil(t, m.GetDelivery())
	}
	for want, c := range map[string]grpc.ServerStreamingClient[streamv1.SubscribeResponse]{
		"TOKEN_MALFORMED": subscribe("x", &streamv1.SubscribeRequest{}),
		"TOKEN_INVALID":   subscribe("stk_bad", &streamv1.SubscribeRequest{}),
		"INVALID_FILTER":  subscribe(s.token(time.Hour), &streamv1.SubscribeRequest{EventTypes: []string{"a.b.c"}}),
		"TOKEN_EXPIRED":   subscribe(s.token(2*time.Second), &streamv1.SubscribeRequest{}),
	} {
		var err error
		for err == nil {
			_, err = c.Recv()
		}
		require.Equal(t, want, errs.From(err).Reason)
	}
	status, metrics := g.fetch("http://" + g.ops + "/metrics")
	require.Equal(t, 200, status)
	require.Contains(t, metrics, "sametick_sse_delivered_total 3")
	require.Contains(t, metrics, "sametick_sse_connections 1")
	require.NotContains(t, g.log.String(), "stk_")
}

// The service starts, and streams go on, while Redis is away; it is unready when LogService is too.
func TestWithoutRedis(t *testing.T) {
	s := newSuite(t)
	s.emit(3)
	require.NoError(t, s.redis.Kill())
	g := s.start()
	for range 3 {
		s.log.Append(s.org, "task", "post_update", 5, "")
	}
	got, err := s.tail(func() string { return g.http }, 6)
	require.NoError(t, err)
	require.Equal(t, []string{"1", "2", "3", "4", "5", "6"}, got)
	s.log.SetDown(true)
	require.Eventually(t, func() bool { return g.probe("/readyz") == 503 }, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, 200, g.probe("/healthz"))
	require.NoError(t, s.redis.Start(t.Context()))
	require.Eventually(t, func() bool { return g.probe("/readyz") == 200 }, 10*time.Second, 10*time.Millisecond)
}

// Postgres and Redis are both put back to an older state under a running gateway. Its open streams end,
// since positions they have seen will be others'; a client that comes back beyond the end is told.
func TestRestoredToAnOlderState(t *testing.T) {
	s := newSuite(t)
	g := s.start()
	s.emit(10)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	open := func(last string) *bufio.Scanner {
		req, err := http.NewRequest(http.MethodGet, "http://"+g.http+"/api/events/stream?token="+s.token(time.Hour), nil)
		require.NoError(t, err)
		req.Header.Set("Last-Event-ID", last)
		res, err := c.Do(req)
		require.NoError(t, err)
		t.Cleanup(func() { _ = res.Body.Close() })
		return bufio.NewScanner(res.Body)
	}
	until := func(lines *bufio.Scanner, want string) bool {
		for lines.Scan() {
			if lines.Text() == want {
				return true
			}
		}
		return false
	}
	lines := open("0")
	require.True(t, until(lines, "id: 10"))
	s.log.Rewind(event.ShardOf(s.org), 4)
	require.NoError(t, s.pub.Refill(t.Context(), 100))
	require.False(t, until(lines, "never"), "the stream ends, though nothing new has happened")
	lines = open("10")
	require.True(t, until(lines, "event: reset"))
	s.emit(1)
	require.True(t, until(lines, "id: 5"))
}

func TestBadConfiguration(t *testing.T) {
	var out bytes.Buffer
	env := map[string]string{"REDIS_URL": "http://x", "INTERNAL_TOKEN": "short", "TOKEN_PUBLIC_KEYS": "k1:abc", "DRAIN_PERIOD": "1h", "CORS_ORIGINS": "example.com"}
	require.Equal(t, 2, app.Run(t.Context(), nil, func(k string) string { return env[k] }, &out))
	for name := range env {
		require.Contains(t, out.String(), name)
	}
	out.Reset()
	require.Equal(t, 2, app.Run(t.Context(), []string{"migrate"}, func(string) string { return "" }, &out))
	out.Reset()
	require.Zero(t, app.Run(t.Context(), []string{"--help"}, func(string) string { return "" }, &out))
	require.Contains(t, out.String(), "HEARTBEAT_INTERVAL")
}
