package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/store"
)

func TestMain(m *testing.M) {
	// The tests' own Postgres lives as long as their process; the Redis client's reconnect delay is a sleep of at most
	// a second that its Close does not wait for.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/sametick/sametick/pkg/devstack.StartProcess.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"), goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

const password = "correct horse battery staple"

// suite is a running api-gateway over a database of its own.
type suite struct {
	t      *testing.T
	g      *gateway
	db     *pgtest.DB
	admin  *pgxpool.Pool
	signer *auth.Signer
	log    *lockedBuffer
	url    string
	conn   *grpc.ClientConn
	// two organisations
	a, b identity.Founded
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func database(t testing.TB) *pgtest.DB {
	t.Helper()
	sum, err := store.Schema().Fingerprint()
	require.NoError(t, err)
	return pgtest.Migrated(t, "api-gateway "+pgtest.Fingerprint(sum...), func(ctx context.Context, url string) error {
		return store.Schema().Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
}

// start runs the service as role sametick_api. change may change its configuration.
func start(t *testing.T, change func(*Config)) *suite {
	t.Helper()
	s := &suite{t: t, db: database(t), log: &lockedBuffer{}}
	s.admin = s.db.Pool(t)
	signing, public, err := auth.GenerateKey("test")
	require.NoError(t, err)
	s.signer, err = auth.ParseSigner(signing)
	require.NoError(t, err)
	c := defaults()
	c.HTTPAddr, c.GRPCAddr, c.OpsAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.RelayAddr, c.WebhookAddr, c.SSEURL = "127.0.0.1:1", "127.0.0.1:1", "http://127.0.0.1:1"
	c.DatabaseURL, c.InternalToken = config.NewSecret(s.db.URLAs(t, "sametick_api")), config.NewSecret("0123456789abcdef")
	c.SigningKey, c.PublicKeys, c.AccessTTL, c.RefreshTTL = config.NewSecret(signing), public, time.Hour, 24*time.Hour
	c.InvitationTTL, c.ResetTTL = 7*24*time.Hour, time.Hour
	if change != nil {
		change(&c)
	}
	tracing, err := telemetry.NewTracing(t.Context(), service, func(string) string { return "" })
	require.NoError(t, err)
	s.g, err = assemble(t.Context(), &c, telemetry.NewLogger(s.log, service, slog.LevelInfo), tracing)
	require.NoError(t, err)
	for i, part := range s.g.parts {
		require.NoError(t, part.Start(t.Context()))
		t.Cleanup(func() { s.stop(s.g.parts[i]) })
	}
	s.g.ready.Ready()
	s.url = "http://" + s.g.http.Addr()
	s.conn, err = rpc.Dial(s.g.grpc.Addr(), rpc.ClientOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.conn.Close()) })
	s.a = s.found("Acme", "ann@acme.example")
	s.b = s.found("Bolt", "bob@bolt.example")
	return s
}

func (s *suite) stop(part lifecycle.Component) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(s.t, part.Stop(ctx))
}

func (s *suite) found(org, email string) identity.Founded {
	f, err := identity.Found(s.t.Context(), s.g.store, org, email, password)
	require.NoError(s.t, err)
	return f
}

// as puts a bearer token beside a gRPC call.
func as(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// answer is what REST said.
type answer struct {
	status int
	header http.Header
	text   string
}

func (a answer) into(t testing.TB, v any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(a.text), v), a.text)
}

// problem reads an error, holding it to the form that each must have.
func (a answer) problem(t testing.TB) problemBody {
	t.Helper()
	var p problemBody
	d := json.NewDecoder(strings.NewReader(a.text))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&p), a.text)
	require.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
	require.Equal(t, a.status, p.Status)
	require.Equal(t, "about:blank", p.Type)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.Detail)
	require.NotEmpty(t, p.Reason)
	require.Equal(t, a.header.Get("X-Request-Id"), p.RequestID)
	require.NotEmpty(t, p.RequestID)
	return p
}

type problemBody struct {
	Type, Title, Detail, Reason string
	Status                      int
	Errors                      []struct{ Field, Reason, Description string }
	Metadata                    map[string]string
	RequestID                   string `json:"request_id"`
}

// call speaks REST with organisation A's key unless token says otherwise ("-" for none).
func (s *suite) call(method, path, token, body string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	switch token {
	case "":
		req.Header.Set("Authorization", "Bearer "+s.a.APIKey)
	case "-":
	default:
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return s.do(req)
}

func (s *suite) do(req *http.Request) answer {
	s.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, res.Body.Close()) }()
	text, err := io.ReadAll(res.Body)
	require.NoError(s.t, err)
	return answer{res.StatusCode, res.Header, string(text)}
}

// ok is call for what must succeed.
func (s *suite) ok(method, path, body string, into any) {
	s.t.Helper()
	a := s.call(method, path, "", body)
	require.Equal(s.t, http.StatusOK, a.status, a.text)
	if into != nil {
		a.into(s.t, into)
	}
}

type wireRecord struct {
	ID         int64
	Type, Name string
	Attributes json.RawMessage
	Version    int64
	WorkflowID *int64  `json:"workflow_id"`
	StepID     *int64  `json:"step_id"`
	CreatedAt  string  `json:"created_at"`
	UpdatedAt  string  `json:"updated_at"`
	ArchivedAt *string `json:"archived_at"`
}

type wireEvents struct {
	Data []struct {
		ID            int64
		OrgID         int64  `json:"org_id"`
		AggregateType string `json:"aggregate_type"`
		AggregateID   int64  `json:"aggregate_id"`
		EventType     string `json:"event_type"`
		Payload       map[string]any
		OccurredAt    string `json:"occurred_at"`
	}
	Total int64
}

func (e wireEvents) types() (list []string) {
	for _, d := range e.Data {
		list = append(list, d.EventType)
	}
	return list
}
