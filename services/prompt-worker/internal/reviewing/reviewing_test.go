package reviewing_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/grpcapi"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/reviewing"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

func TestMain(m *testing.M) { workertest.Main(m) }

const token = "secret-secret-secret"

// service is ReviewService over gRPC.
type service struct {
	*workertest.World
	model *workertest.Model
	conn  *grpc.ClientConn
	addr  string
}

func start(t *testing.T, orgBudget prompting.Limits) *service {
	t.Helper()
	s := &service{World: workertest.NewWorld(t, orgBudget), model: &workertest.Model{Answer: says("approve")}}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	compiler := workertest.Compiler(t)
	recorder := reviewing.NewRecorder(s.Store, workertest.Free{}, log)
	found := reviewing.NewHooks(s.Store, compiler)
	engine := review.New(found, &reviewing.Runner{Hooks: found, Store: s.Store, Recorder: recorder,
		Executor: &runs.Executor{Models: s.model, Compiler: compiler, Prices: workertest.Free{}}}, recorder, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { _ = recorder.Draw(ctx, ctx) })
	keeping, stopKeeping := context.WithCancel(context.Background())
	loops.Go(func() { _ = recorder.Keep(keeping, context.Background()) })
	unary, stream := rpc.InternalAuth(token)
	server := rpc.NewServer(rpc.ServerOptions{Addr: "127.0.0.1:0", Log: telemetry.NewLogger(io.Discard, "test", nil), Registry: prometheus.NewRegistry(),
		Unary: []grpc.UnaryServerInterceptor{unary}, Stream: []grpc.StreamServerInterceptor{stream}, Register: (&grpcapi.Review{Reviewer: engine}).Register})
	require.NoError(t, server.Start(t.Context()))
	s.addr = server.Addr()
	s.conn = dial(t, s.addr, token)
	t.Cleanup(func() {
		require.NoError(t, server.Stop(context.Background()))
		engine.Close()
		stopKeeping()
		cancel()
		loops.Wait()
	})
	s.Eventually("ids are drawn", func() bool {
		return s.review(1, task("x")) != nil && s.Count(`SELECT last_value FROM sametick.prompt_run_ids`) > 1
	})
	return s
}

func dial(t *testing.T, addr, token string) *grpc.ClientConn {
	c, err := rpc.Dial(addr, rpc.ClientOptions{Token: token})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// says is a model's answer.
func says(verdict string) func(context.Context, prompting.Request) (prompting.Response, error) {
	text := fmt.Sprintf(`{"verdict":%q,"rule_ids":[],"reason":"because","injection_suspected":false}`, verdict)
	return func(context.Context, prompting.Request) (prompting.Response, error) {
		return prompting.Response{JSON: json.RawMessage(text), Usage: prompting.Usage{Input: 10, Output: 5}}, nil
	}
}

func task(name string) *promptsv1.ProposedWrite {
	after := fmt.Sprintf(`{"name":%q,"attributes":{}}`, name)
	return &promptsv1.ProposedWrite{EventType: "task.pre_create", AggregateType: "task", RecordName: name, After: &wirev1.Json{Text: after}}
}

func (s *service) review(org int64, w *promptsv1.ProposedWrite) *promptsv1.Judgement {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(s.T.Context(), 30*time.Second)
	defer cancel()
	res, err := promptsv1.NewReviewServiceClient(s.conn).Review(ctx, &promptsv1.ReviewRequest{OrgId: org, Writes: []*promptsv1.ProposedWrite{w}})
	require.NoError(s.T, err)
	return res.GetJudgements()[0]
}

func rules(set *hooks.Settings) {
	set.Mode, set.EventTypes, set.TemplateID, set.TemplateVersion, set.ProviderID = hooks.ModeReview, []string{"task.pre_create"}, 0, 0, 0
	set.Rules = []prompting.Rule{{ID: "title", Expression: `after.name == ""`, Reason: "a task needs a title"}}
}

func asks(set *hooks.Settings) {
	set.Mode, set.EventTypes, set.TimeoutMS = hooks.ModeReview, []string{"task.pre_create"}, 10_000
}

func TestRulesOverTheWire(t *testing.T) {
	t.Parallel()
	s := start(t, prompting.Limits{})
	require.False(t, s.review(1, task("")).GetRejected(), "no hook")
	h := s.Hook(rules)
	j := s.review(1, task(""))
	require.True(t, j.GetRejected())
	v := j.GetVerdicts()[0]
	require.Equal(t, "a task needs a title", v.GetReason())
	require.Equal(t, []string{"title"}, v.GetRuleIds())
	require.Equal(t, h.ID, v.GetHookId())
	require.NotZero(t, v.GetRunId())
	require.False(t, s.review(1, task("Call")).GetRejected())
	require.False(t, s.review(2, task("")).GetRejected(), "another organisation's hook is not asked")
	s.Eventually("runs are kept", func() bool { return s.Count(`SELECT count(*) FROM sametick.prompt_runs`) == 2 })
	run, err := s.Store.GetRun(t.Context(), 1, v.GetRunId())
	require.NoError(t, err)
	require.Equal(t, "reject", run.Verdict)
	require.Equal(t, runs.ByReview, run.Trigger)
	_, err = s.Store.GetRun(t.Context(), 2, v.GetRunId())
	require.True(t, errs.HasReason(err, "RUN_NOT_FOUND"), "nor its runs shown")
	require.Empty(t, s.model.Asked())
	require.Equal(t, 0, s.Count(`SELECT count(*) FROM sametick.prompt_budgets`), "rules cost nothing")
}

func TestOnlyTheSuiteAsks(t *testing.T) {
	t.Parallel()
	s := start(t, prompting.Limits{})
	for _, wrong := range []string{"", "secret-secret-secrex"} {
		_, err := promptsv1.NewReviewServiceClient(dial(t, s.addr, wrong)).Review(t.Context(), &promptsv1.ReviewRequest{OrgId: 1, Writes: []*promptsv1.ProposedWrite{task("x")}})
		require.Equal(t, errs.Unauthenticated, errs.KindOf(err))
	}
}

// What is remembered of hooks never outlives a change of them, of their template's label or of their provider.
func TestMemoryIsExact(t *testing.T) {
	t.Parallel()
	s := start(t, prompting.Limits{})
	ctx := t.Context()
	h := s.Hook(asks, func(set *hooks.Settings) { set.TemplateVersion, set.TemplateLabel = 0, "live" })
	move := func(version int) {
		_, err := s.Store.MoveLabel(ctx, s.Call, h.TemplateID, prompting.Move{Label: "live", Version: version}, nothing)
		require.NoError(t, err)
	}
	j := s.review(1, task("a"))
	require.True(t, j.GetRejected(), "a label that is not there is a failure, not silence")
	require.Equal(t, "failed", j.GetVerdicts()[0].GetVerdict())
	move(1)
	require.False(t, s.review(1, task("a")).GetRejected())
	_, err := s.Store.AddVersion(ctx, s.Call, h.TemplateID, prompting.Version{
		Messages:  []prompting.Message{{Role: "user", Text: "Version two of {{ name }}."}},
		Variables: []prompting.Variable{{Name: "name", Path: "payload.record_name"}}}, "")
	require.NoError(t, err)
	for i := range 3 {
		move(2 - i%2)
		s.review(1, task(fmt.Sprint("b", i)))
		asked := s.model.Asked()
		require.Equal(t, i%2 == 0, strings.HasPrefix(asked[len(asked)-1].Turns[0].Text, "Version two"))
	}
	_, err = s.Store.UpdateHook(ctx, s.Call, h.ID, nil, func(h hooks.Hook) (hooks.Settings, error) { h.Enabled = false; return h.Settings, nil })
	require.NoError(t, err)
	require.Empty(t, s.review(1, task("c")).GetVerdicts())
	require.Equal(t, 0, s.Count(`SELECT count(*) FROM sametick.review_hooks`), "api-gateway knows it too")

	// The control: behind the database's back nothing is noticed.
	_, err = s.Store.UpdateHook(ctx, s.Call, h.ID, nil, func(h hooks.Hook) (hooks.Settings, error) { h.Enabled = true; return h.Settings, nil })
	require.NoError(t, err)
	require.NotEmpty(t, s.review(1, task("d")).GetVerdicts())
	_, err = s.Admin.Exec(ctx, `UPDATE sametick.prompt_hooks SET archived_at = now()`)
	require.NoError(t, err)
	require.NotEmpty(t, s.review(1, task("d")).GetVerdicts())
}

// Sixty-four reviews at the edge of a budget: exactly as many models are asked as it covers.
func TestBudgetOfReviews(t *testing.T) {
	t.Parallel()
	for name, org := range map[string]bool{"hook": false, "organisation": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ten := int64(10)
			limits := prompting.Limits{}
			if org {
				limits.Runs = &ten
			}
			s := start(t, limits)
			h := s.Hook(asks, func(set *hooks.Settings) {
				if !org {
					set.Budget.Runs = &ten
				}
			})
			var all sync.WaitGroup
			for i := range 64 {
				all.Go(func() { s.review(1, task(fmt.Sprint("task ", i))) })
			}
			all.Wait()
			require.Len(t, s.model.Asked(), 10)
			s.Eventually("all settled", func() bool { return s.Count(`SELECT count(*) FROM sametick.prompt_reservations`) == 0 })
			for _, id := range []int64{0, h.ID} {
				spent, held, err := s.Store.Spent(t.Context(), 1, id, time.Now().UTC().Truncate(24*time.Hour))
				require.NoError(t, err)
				require.Equal(t, prompting.Amount{Runs: 10, Tokens: 150, Cost: 150}, spent)
				require.Zero(t, held)
			}
			s.Eventually("the others are told why", func() bool { return s.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE cause = 'budget'`) == 54 })
		})
	}
}

func nothing(context.Context, store.Tx, []*hooks.Hook) ([]int64, error) { return nil, nil }
