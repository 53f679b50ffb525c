package app_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/stream/streamtest"
	"github.com/sametick/sametick/pkg/telemetry"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/app"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/provider/providertest"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

func TestMain(m *testing.M) { workertest.Main(m) }

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

// process is the whole program, beside a position log and a Redis.
type process struct {
	*workertest.World
	pub       *streamtest.Publisher
	ring      *keyring.Ring
	env       map[string]string
	grpc, ops string
	log       lockedBuffer
	stop      func() int
}

func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func start(t *testing.T) *process {
	t.Helper()
	p := &process{World: workertest.NewWorld(t, prompting.Limits{}), grpc: freeAddr(t), ops: freeAddr(t)}
	server := redistest.New(t)
	p.pub = streamtest.NewPublisher(t, p.Log, server.URL, server)
	unary, stream := rpc.InternalAuth(internalToken)
	relay := rpc.NewServer(rpc.ServerOptions{Addr: "127.0.0.1:0", Log: telemetry.NewLogger(io.Discard, "test", nil), Registry: prometheus.NewRegistry(),
		Unary: []grpc.UnaryServerInterceptor{unary}, Stream: []grpc.StreamServerInterceptor{stream}, Register: p.Log.Register})
	require.NoError(t, relay.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, relay.Stop(context.Background())) })
	key := keyring.Generate("a")
	var err error
	p.ring, err = keyring.Parse(key)
	require.NoError(t, err)
	p.env = map[string]string{
		"DATABASE_URL": p.DB.URLAs(t, workertest.Role), "REDIS_URL": server.URL, "INTERNAL_TOKEN": internalToken, "ENCRYPTION_KEYS": key, "RELAY_ADDR": relay.Addr(),
		"GRPC_ADDR": p.grpc, "OPS_ADDR": p.ops, "LEASE_TTL": "1s", "EGRESS_HTTP": "true", "EGRESS_ALLOW": "127.0.0.0/8", "PROMPT_PRICES": "m=1/1/2",
	}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- app.Run(ctx, nil, func(k string) string { return p.env[k] }, &p.log) }()
	p.stop = sync.OnceValue(func() int { cancel(); return <-code })
	t.Cleanup(func() {
		if got := p.stop(); got != 0 {
			t.Errorf("exit code %d", got)
		}
		if t.Failed() {
			t.Logf("the log:\n%s", p.log.String())
		}
	})
	p.Eventually("ready", func() bool { return strings.HasPrefix(p.get("/readyz"), "200") })
	return p
}

func (p *process) get(path string) string {
	req, err := http.NewRequestWithContext(p.T.Context(), http.MethodGet, "http://"+p.ops+path, nil)
	require.NoError(p.T, err)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	require.NoError(p.T, err)
	return fmt.Sprintf("%d %s", res.StatusCode, text)
}

// provider makes one that speaks to a scripted server, with a key.
func (p *process) provider(s *providertest.Server, key string) int64 {
	id, err := p.Store.NewID(p.T.Context())
	require.NoError(p.T, err)
	s.Key = key
	_, err = p.Store.CreateProvider(p.T.Context(), p.Call, hooks.Provider{ID: id, Name: "scripted", Kind: "openai", BaseURL: s.URL + "/v1", DefaultModel: "m",
		KeySealed: p.ring.Seal(keyring.Owner{OrgID: p.Call.OrgID, ID: id, Purpose: hooks.PurposeProviderKey}, []byte(key)), KeyHint: key[len(key)-4:]})
	require.NoError(p.T, err)
	return id
}

func (p *process) publish() {
	p.Relay()
	require.NoError(p.T, p.pub.Publish(p.T.Context()))
}

// From an event to a run by a model over HTTP, to its event; the key is nowhere but in the request.
func TestAsyncRun(t *testing.T) {
	t.Parallel()
	p := start(t)
	server := providertest.New(t, providertest.Sequence(providertest.Reply{Text: "It is about a call.", Input: 100, Output: 20}))
	id := p.provider(server, "sk-very-secret")
	p.Hook(func(set *hooks.Settings) { set.ProviderID, set.TimeoutMS = id, 20_000 })
	p.Task(7)
	p.publish()
	p.Eventually("it runs", func() bool { return p.Count(`SELECT count(*) FROM sametick.prompt_runs`) == 1 })
	require.Equal(t, 1, p.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE output::text = '"It is about a call."' AND input_tokens = 100 AND output_tokens = 20
		AND cost = 140 AND provider_id = $1 AND model = 'm' AND attempts = 1`, id))
	require.Len(t, server.Asked(), 1)
	require.Contains(t, server.Asked()[0].Turns[0].Text, "task^7", "in its fence")
	require.Contains(t, p.get("/metrics"), `sametick_prompt_runs_total{cause="",mode="async",status="completed"} 1`)
	require.Zero(t, p.stop())
	require.NotContains(t, p.log.String(), "very-secret")
	require.Zero(t, p.Count(`SELECT count(*) FROM sametick.events WHERE payload::text LIKE '%very-secret%'`))
	require.Zero(t, p.Count(`SELECT count(*) FROM sametick.prompt_providers WHERE position('very-secret'::bytea IN key_sealed) > 0`))
}

// A hook of rules and a hook with a model review a write over gRPC.
func TestReview(t *testing.T) {
	t.Parallel()
	p := start(t)
	server := providertest.New(t, providertest.Sequence(providertest.Reply{Text: `{"verdict":"reject","rule_ids":[],"reason":"rude","injection_suspected":false}`, Input: 9, Output: 9}))
	id := p.provider(server, "sk-very-secret")
	p.Hook(func(set *hooks.Settings) {
		set.Mode, set.EventTypes, set.TemplateID, set.TemplateVersion, set.ProviderID = hooks.ModeReview, []string{"task.pre_create"}, 0, 0, 0
		set.Rules = []prompting.Rule{{ID: "title", Expression: `after.name == ""`, Reason: "a task needs a title"}}
	})
	p.Hook(func(set *hooks.Settings) {
		set.Mode, set.EventTypes, set.ProviderID, set.TimeoutMS = hooks.ModeReview, []string{"*.pre_create"}, id, 10_000
	})
	conn, err := rpc.Dial(p.grpc, rpc.ClientOptions{Token: internalToken})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ask := func(name string) *promptsv1.Judgement {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		res, err := promptsv1.NewReviewServiceClient(conn).Review(ctx, &promptsv1.ReviewRequest{OrgId: 1, Writes: []*promptsv1.ProposedWrite{{
			EventType: "task.pre_create", AggregateType: "task", RecordName: name, After: &wirev1.Json{Text: fmt.Sprintf(`{"name":%q}`, name)}}}})
		require.NoError(t, err)
		return res.GetJudgements()[0]
	}
	j := ask("")
	require.True(t, j.GetRejected())
	require.Equal(t, "a task needs a title", j.GetVerdicts()[0].GetReason())
	require.Equal(t, "superseded", j.GetVerdicts()[1].GetVerdict())
	require.Empty(t, server.Asked(), "what rules deny is shown to no model")
	j = ask("shut up")
	require.True(t, j.GetRejected())
	require.Equal(t, "rude", j.GetVerdicts()[1].GetReason())
	require.Len(t, server.Asked(), 1)
	p.Eventually("runs are kept", func() bool { return p.Count(`SELECT count(*) FROM sametick.prompt_runs`) == 4 })
	require.Equal(t, 1, p.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE verdict = 'reject' AND cost = 27 AND mode = 'review'`))
}

func TestReencrypt(t *testing.T) {
	t.Parallel()
	p := start(t)
	server := providertest.New(t, providertest.Sequence(providertest.Reply{}))
	id := p.provider(server, "sk-very-secret")
	old := p.env["ENCRYPTION_KEYS"]
	next := keyring.Generate("b")
	run := func(keys string) int {
		env := map[string]string{"DATABASE_URL": p.env["DATABASE_URL"], "ENCRYPTION_KEYS": keys}
		return app.Run(t.Context(), []string{"re-encrypt"}, func(k string) string { return env[k] }, &p.log)
	}
	require.NotZero(t, run(next), "without the old key it cannot")
	require.Zero(t, run(next+","+old))
	ring, err := keyring.Parse(next)
	require.NoError(t, err)
	got, err := p.Store.GetProvider(t.Context(), 1, id)
	require.NoError(t, err)
	secret, err := ring.Open(keyring.Owner{OrgID: 1, ID: id, Purpose: hooks.PurposeProviderKey}, got.KeySealed)
	require.NoError(t, err)
	require.Equal(t, "sk-very-secret", string(secret))
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	none := func(string) string { return "" }
	require.Zero(t, app.Run(t.Context(), []string{"--help"}, none, &out))
	for _, want := range []string{"re-encrypt", "ENCRYPTION_KEYS", "EGRESS_ALLOW", "ORG_BUDGET_COST", "LEASE_TTL"} {
		require.Contains(t, out.String(), want)
	}
	require.Equal(t, 2, app.Run(t.Context(), nil, none, &out))
	require.Equal(t, 2, app.Run(t.Context(), []string{"dance"}, none, &out))
	valid := map[string]string{"DATABASE_URL": "postgres://x", "REDIS_URL": "redis://x", "INTERNAL_TOKEN": internalToken, "ENCRYPTION_KEYS": keyring.Generate("a")}
	for name, value := range map[string]string{"PROMPT_PRICES": "x", "ORG_BUDGET_RUNS": "-1", "RUNS_AT_ONCE": "0", "LEASE_TTL": "1ms", "CHAIN_DEPTH": "0",
		"EGRESS_ALLOW": "10.0.0.0/99", "MASKED_PATHS": "a..b"} {
		env := maps.Clone(valid)
		env[name] = value
		out.Reset()
		require.Equal(t, 2, app.Run(t.Context(), nil, func(k string) string { return env[k] }, &out))
		require.Contains(t, out.String(), "  "+name)
		require.Equal(t, 2, strings.Count(out.String(), "\n"), "nothing else is wrong: %s", out.String())
	}
}
