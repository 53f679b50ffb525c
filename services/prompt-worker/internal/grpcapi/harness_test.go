package grpcapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/grpcapi"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/managing"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/reviewing"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

func TestMain(m *testing.M) { workertest.Main(m) }

const (
	suiteToken = "secret-secret-sec"
	orgA, orgB = 1, 2
	user       = 77
)

// api is a running PromptService over a database of its own.
type api struct {
	*workertest.World
	t      *testing.T
	model  *workertest.Model
	ring   *keyring.Ring
	log    *lockedBuffer
	conn   *grpc.ClientConn
	client promptsv1.PromptServiceClient
	// executor and reviews are what hooks are tried with.
	executor *runs.Executor
	reviews  *reviewing.Trier
	// offered are the tools of every MCP server.
	offered []prompting.Tool
	// fillers are an organisation's own ids, where a request needs more than one.
	fillers map[int64]map[string]int64
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

// Offered implements managing.Tools.
func (a *api) Offered(context.Context, *hooks.Server) ([]prompting.Tool, error) {
	if a.offered == nil {
		return nil, errors.New("it does not answer")
	}
	return a.offered, nil
}

func start(t *testing.T) *api {
	t.Parallel()
	a := &api{World: workertest.NewWorld(t, prompting.Limits{}), t: t, model: &workertest.Model{}, log: &lockedBuffer{}}
	var err error
	a.ring, err = keyring.Parse(keyring.Generate("test"))
	require.NoError(t, err)
	conditions, err := condition.NewWriteCompiler(100)
	require.NoError(t, err)
	log := telemetry.NewLogger(a.log, "test", slog.LevelDebug)
	executor := &runs.Executor{Models: a.model, Compiler: runs.NewCompiler(conditions), Prices: workertest.Free{}}
	a.executor = executor
	recorder := reviewing.NewRecorder(a.Store, workertest.Free{}, log)
	take, stop := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { _ = recorder.Draw(take, take) })
	loops.Go(func() { _ = recorder.Keep(take, context.Background()) })
	a.reviews = &reviewing.Trier{Store: a.Store, Executor: executor, Recorder: recorder}
	service := &managing.Service{Store: a.Store, Ring: a.ring, Conditions: conditions, CheckURL: checkURL, CheckCommand: checkCommand, Tools: a,
		Executor: executor, Reviews: a.reviews}
	s := rpc.NewServer(rpc.ServerOptions{Addr: "127.0.0.1:0", Log: log, Registry: telemetry.NewRegistry(),
		Unary: grpcapi.Unary(suiteToken, idempotency.NewClaims(a.Pool, nil)), Register: (&grpcapi.Prompts{Service: service}).Register})
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() {
		require.NoError(t, s.Stop(context.WithoutCancel(t.Context())))
		stop()
		loops.Wait()
	})
	a.conn = dial(t, s.Addr(), suiteToken)
	a.client = promptsv1.NewPromptServiceClient(a.conn)
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
	if !strings.HasPrefix(text, "https://") {
		return "", errors.New("want https://")
	}
	return text, nil
}

func checkCommand(command []string) error {
	if len(command) != 1 || command[0] != "/bin/tools" {
		return errors.New("no")
	}
	return nil
}

// as makes calls of an organisation's.
func (a *api) as(org int64) context.Context {
	u := int64(user)
	return rpc.WithCaller(a.t.Context(), rpc.Caller{OrgID: org, UserID: &u, Subject: "user:77", Scopes: auth.PromptsManage, IP: "203.0.113.9", UserAgent: "test"})
}

func (a *api) keyed(key string) context.Context {
	return metadata.AppendToOutgoingContext(a.as(orgA), idempotency.Key, key)
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		require.NoError(t, err)
		return v
	}
}

// template makes one of org A's.
func (a *api) template() int64 {
	return must[*promptsv1.Template](a.t)(a.client.CreateTemplate(a.as(orgA), &promptsv1.CreateTemplateRequest{Name: "summary",
		Messages:  []*promptsv1.Message{{Role: "user", Text: "Sum up {{ name }}."}},
		Variables: []*promptsv1.Variable{{Name: "name", Path: "payload.record_name"}}})).GetId()
}

// provider makes one of org A's.
func (a *api) provider() int64 {
	return must[*promptsv1.Provider](a.t)(a.client.CreateProvider(a.as(orgA), &promptsv1.CreateProviderRequest{Name: "p", Kind: "openai",
		BaseUrl: "https://models.example/v1", DefaultModel: "m", Key: "sk-very-secret-zqzq"})).GetId()
}

// review is a request for a hook of rules.
func review(change ...func(*promptsv1.CreateHookRequest)) *promptsv1.CreateHookRequest {
	r := &promptsv1.CreateHookRequest{Name: "titles", Mode: "review", EventTypes: []string{"task.pre_create", "task.pre_update"},
		Rules: []*promptsv1.Rule{{Id: "title", Expression: `after.name == ""`, Reason: "a task needs a title"}}}
	for _, f := range change {
		f(r)
	}
	return r
}

// async is a request for a hook with a model.
func (a *api) async(change ...func(*promptsv1.CreateHookRequest)) *promptsv1.CreateHookRequest {
	r := &promptsv1.CreateHookRequest{Name: "summaries", Mode: "async", EventTypes: []string{"task.*"}, TemplateId: a.template(), TemplateVersion: 1, ProviderId: a.provider()}
	for _, f := range change {
		f(r)
	}
	return r
}

// faults gives the faulty fields of an error and their reasons.
func faults(err error) map[string]string {
	out := map[string]string{}
	for _, f := range errs.From(err).Fields {
		out[f.Field] = f.Reason
	}
	return out
}

// events gives what happened to an object, oldest first.
func (a *api) events(typ string, id int64) (list []string) {
	a.t.Helper()
	rows, err := a.Admin.Query(a.t.Context(), `SELECT event_type FROM sametick.events WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY id`, typ, id)
	require.NoError(a.t, err)
	defer rows.Close()
	for rows.Next() {
		var eventType string
		require.NoError(a.t, rows.Scan(&eventType))
		list = append(list, strings.TrimPrefix(eventType, typ+"."))
	}
	require.NoError(a.t, rows.Err())
	return list
}

// event records an event of a task of org A's, as another service does, and gives its id.
func (a *api) event(action string, id int64, name string, payload map[string]any) (event int64) {
	a.t.Helper()
	changes, err := json.Marshal(payload)
	require.NoError(a.t, err)
	require.NoError(a.t, a.Admin.QueryRow(a.t.Context(), `SELECT sametick.record_event($1, 'task', $2, $3, record_name => $4, changes => $5)`,
		orgA, id, action, name, string(changes)).Scan(&event))
	return event
}
