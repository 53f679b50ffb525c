package grpcapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
	"github.com/sametick/sametick/services/webhook-worker/internal/grpcapi"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
	"github.com/sametick/sametick/services/webhook-worker/internal/workertest"
)

func TestMain(m *testing.M) { workertest.Main(m) }

const (
	suiteToken = "secret-secret-sec"
	orgA, orgB = 1, 2
	user       = 77
)

// api is a running WebhookService over a database of its own.
type api struct {
	t       *testing.T
	admin   *pgxpool.Pool
	store   *store.Store
	ring    *keyring.Ring
	log     *lockedBuffer
	conn    *grpc.ClientConn
	client  webhooksv1.WebhookServiceClient
	changed atomic.Int64
	// events are the log of positions, of org A.
	events []endpoints.Event
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

// Read implements endpoints.Log, over events.
func (a *api) Read(_ context.Context, org, after int64, limit int) (page []endpoints.Event, head int64, err error) {
	for _, e := range a.events {
		head = e.Position
		if e.Position > after && len(page) < limit && org == orgA {
			page = append(page, e)
		}
	}
	return page, head, nil
}

func start(t *testing.T) *api {
	t.Parallel()
	db := workertest.Database(t)
	pool := pgtest.Pool(t, db.URLAs(t, workertest.Role))
	ring, err := keyring.Parse(keyring.Generate("test"))
	require.NoError(t, err)
	conditions, err := condition.NewCompiler(100)
	require.NoError(t, err)
	a := &api{t: t, admin: db.Pool(t), store: store.New(pool), ring: ring, log: &lockedBuffer{}}
	service := endpoints.NewService(endpoints.Options{Store: a.store, History: a.store, Ring: ring, Most: 5, Log: a, Changed: func() { a.changed.Add(1) },
		Checks: endpoints.Checks{URL: checkURL, Conditions: conditions, Secret: checkSecret}})
	s := rpc.NewServer(rpc.ServerOptions{Addr: "127.0.0.1:0", Log: telemetry.NewLogger(a.log, "test", slog.LevelDebug), Registry: telemetry.NewRegistry(),
		Unary: grpcapi.Unary(suiteToken, idempotency.NewClaims(pool, nil)), Register: grpcapi.New(service).Register})
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, s.Stop(context.WithoutCancel(t.Context()))) })
	a.conn = dial(t, s.Addr(), suiteToken)
	a.client = webhooksv1.NewWebhookServiceClient(a.conn)
	return a
}

func dial(t *testing.T, addr, token string) *grpc.ClientConn {
	c, err := rpc.Dial(addr, rpc.ClientOptions{Token: token})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// checkURL stands for pkg/netguard, whose own tests say what it refuses.
func checkURL(text string) (string, error) {
	if !strings.HasPrefix(strings.ToLower(text), "https://") {
		return "", errors.New("want https://")
	}
	return strings.Replace(text, "HTTPS", "https", 1), nil
}

func checkSecret(text string) error {
	if !strings.HasPrefix(text, "whsec_") || len(text) < 30 {
		return errors.New("no secret")
	}
	return nil
}

// as makes calls of an organisation's.
func (a *api) as(org int64) context.Context {
	u := int64(user)
	return rpc.WithCaller(a.t.Context(), rpc.Caller{OrgID: org, UserID: &u, Subject: "user:77", Scopes: auth.WebhooksManage, IP: "203.0.113.9", UserAgent: "test"})
}

// byPortal makes calls by the link to a portal of org A's, for some endpoints or all.
func (a *api) byPortal(only ...int64) context.Context {
	u := int64(user)
	return rpc.WithCaller(a.t.Context(), rpc.Caller{OrgID: orgA, UserID: &u, Subject: "user:77", Portal: &rpc.Portal{ID: fmt.Sprint("link", only), Endpoints: only}})
}

func (a *api) keyed(key string) context.Context {
	return metadata.AppendToOutgoingContext(a.as(orgA), idempotency.Key, key)
}

// create makes an endpoint of org A's.
func (a *api) create(change func(*webhooksv1.CreateEndpointRequest)) *webhooksv1.EndpointSecret {
	a.t.Helper()
	req := &webhooksv1.CreateEndpointRequest{Url: "https://receiver.example/hook"}
	if change != nil {
		change(req)
	}
	e, err := a.client.CreateEndpoint(a.as(orgA), req)
	require.NoError(a.t, err)
	return e
}

// recorded is an event or an audit entry.
type recorded struct {
	Type, Payload string
}

// events gives an endpoint's events, oldest first.
func (a *api) eventsOf(id int64) (list []recorded) {
	a.t.Helper()
	rows, err := a.admin.Query(a.t.Context(), `SELECT event_type, payload::text FROM sametick.events WHERE aggregate_type = 'webhook_endpoint' AND aggregate_id = $1 ORDER BY id`, id)
	require.NoError(a.t, err)
	defer rows.Close()
	for rows.Next() {
		var r recorded
		require.NoError(a.t, rows.Scan(&r.Type, &r.Payload))
		list = append(list, r)
	}
	require.NoError(a.t, rows.Err())
	return list
}

func types(list []recorded) (out []string) {
	for _, r := range list {
		out = append(out, strings.TrimPrefix(r.Type, "webhook_endpoint."))
	}
	return out
}

func (r recorded) field(t *testing.T, name string) any {
	var all map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.Payload), &all))
	return all[name]
}

func (a *api) exec(sql string, args ...any) {
	a.t.Helper()
	_, err := a.admin.Exec(a.t.Context(), sql, args...)
	require.NoError(a.t, err)
}

func (a *api) count(sql string, args ...any) (n int) {
	a.t.Helper()
	require.NoError(a.t, a.admin.QueryRow(a.t.Context(), sql, args...).Scan(&n))
	return n
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), into), text)
}
