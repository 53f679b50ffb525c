package grpcapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/sametick/sametick/pkg/errs"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/backtest"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// worker runs backtests until it is killed.
func (a *api) worker(holder string, change ...func(*backtest.Runner)) (kill func()) {
	r := &backtest.Runner{Queue: store.Backtests{Store: a.Store}, Executor: a.executor, Reviews: a.reviews, Log: slog.New(slog.DiscardHandler), Holder: holder,
		AtOnce: 1, Poll: 5 * time.Millisecond}
	for _, f := range change {
		f(r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = r.Run(ctx, ctx) })
	kill = sync.OnceFunc(func() { cancel(); done.Wait() })
	a.t.Cleanup(kill)
	return kill
}

func (a *api) backtest(req *promptsv1.BacktestHookRequest) *promptsv1.Backtest {
	a.t.Helper()
	b := must[*promptsv1.Backtest](a.t)(a.client.BacktestHook(a.as(orgA), req))
	require.Equal(a.t, "queued", b.GetStatus())
	return b
}

func (a *api) got(id int64) *promptsv1.Backtest {
	a.t.Helper()
	return must[*promptsv1.Backtest](a.t)(a.client.GetBacktest(a.as(orgA), &promptsv1.GetBacktestRequest{Id: id}))
}

func (a *api) ended(b *promptsv1.Backtest) *promptsv1.Backtest {
	a.t.Helper()
	a.Eventually("the backtest ends", func() bool { return a.got(b.GetId()).FinishedAt != nil })
	return a.got(b.GetId())
}

func cells(b *promptsv1.Backtest) map[string]int {
	out := map[string]int{}
	for _, c := range b.GetReport().GetMatrix() {
		out[c.GetBaseline()+" "+c.GetResult()] = int(c.GetCount())
	}
	return out
}

// asyncHook makes one with version 2 of its template.
func (a *api) asyncHook(change ...func(*promptsv1.CreateHookRequest)) *promptsv1.Hook {
	a.t.Helper()
	h := must[*promptsv1.Hook](a.t)(a.client.CreateHook(a.as(orgA), a.async(change...)))
	must[*promptsv1.TemplateVersion](a.t)(a.client.CreateTemplateVersion(a.as(orgA), &promptsv1.CreateTemplateVersionRequest{TemplateId: h.GetTemplateId(),
		Messages: []*promptsv1.Message{{Role: "user", Text: "Version two of {{ name }}."}}, Variables: []*promptsv1.Variable{{Name: "name", Path: "payload.record_name"}}}))
	return h
}

// pre records a pre_create that a hook has reviewed; an empty verdict is of no review.
func (a *api) pre(hook int64, name, verdict string) (event int64) {
	a.t.Helper()
	extra := `{}`
	if verdict != "" {
		extra = fmt.Sprintf(`{"reviews":[{"hook_id":1,"verdict":"reject"},{"hook_id":%d,"verdict":%q,"reason":"then"}]}`, hook, verdict)
	}
	require.NoError(a.t, a.Admin.QueryRow(a.t.Context(), `SELECT sametick.record_event(1, 'task', 7, 'pre_create', record_name => $1, extra => $2::jsonb)`, name, extra).Scan(&event))
	return event
}

// promptOf has what a model was asked.
func promptOf(r prompting.Request) string { return r.System + r.Turns[0].Text }

func TestBacktestOfAReview(t *testing.T) {
	a := start(t)
	h := a.asyncHook(func(r *promptsv1.CreateHookRequest) { r.Mode, r.EventTypes = "review", []string{"task.pre_create"} })
	for _, e := range [][2]string{{"good", "approve"}, {"bad", "approve"}, {"bad", "reject"}, {"good", "reject"}, {"broken", "approve"}, {"good", ""},
		{"good", "superseded"}, {"good", "failed"}} {
		a.pre(h.GetId(), e[0], e[1])
	}
	a.event("post_create", 7, "good", nil)
	a.model.Answer = func(_ context.Context, r prompting.Request) (prompting.Response, error) {
		text, verdict := promptOf(r), "approve"
		if !strings.Contains(text, "Version two") {
			return prompting.Response{}, &prompting.ModelError{Cause: prompting.CauseRefused, Text: "the wrong version"}
		}
		if strings.Contains(text, "broken") {
			return prompting.Response{JSON: json.RawMessage(`{}`), Usage: prompting.Usage{Input: 1}}, nil
		}
		if strings.Contains(text, "bad") {
			verdict = "reject"
		}
		return prompting.Response{JSON: json.RawMessage(fmt.Sprintf(`{"verdict":%q,"rule_ids":[],"reason":"now","injection_suspected":false}`, verdict)), Usage: prompting.Usage{Input: 9, Output: 1}}, nil
	}
	before := a.Count(`SELECT count(*) FROM sametick.events`)
	a.worker("w")
	b := a.ended(a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId()}))
	require.Equal(t, []string{"completed", "review", ""}, []string{b.GetStatus(), b.GetMode(), b.GetBudgetExhausted()})
	require.EqualValues(t, 2, b.GetTemplateVersion(), "the newest")
	require.Equal(t, map[string]int{"approve approve": 1, "approve reject": 1, "reject reject": 1, "reject approve": 1, "approve error": 1, "no_baseline approve": 2,
		"error approve": 1}, cells(b))
	r := b.GetReport()
	require.Equal(t, []int32{8, 8, 2, 1, 4, 8, 0}, []int32{r.GetMatched(), r.GetDone(), r.GetNoBaseline(), r.GetFailed(), r.GetFlipsTotal(), r.GetCalls(), r.GetUnknown()},
		"N is larger than there are events")
	require.Equal(t, "invalid_output", r.GetFailures()[0].GetCause())
	require.Equal(t, []string{"error", "then", "approve", "now"}, []string{r.GetFlips()[0].GetBaseline(), r.GetFlips()[0].GetBaselineReason(), r.GetFlips()[0].GetResult(), r.GetFlips()[0].GetReason()})
	require.EqualValues(t, 71, r.GetUsage().GetCost())
	require.LessOrEqual(t, r.GetLatencyP50(), r.GetLatencyP95())
	require.Positive(t, r.GetLatencyP50())
	run := must[*promptsv1.Run](t)(a.client.GetRun(a.as(orgA), &promptsv1.GetRunRequest{Id: r.GetFlips()[0].GetRunId()}))
	require.Equal(t, []string{"backtest", "approve"}, []string{run.GetTrigger(), run.GetVerdict()})
	// Nothing came of it but its own events, and the organisation paid, not the hook's day.
	require.Equal(t, []string{"pre_create", "post_create", "pre_update", "post_update"}, a.events(hooks.TypeBacktest, b.GetId()))
	require.Equal(t, before+4, a.Count(`SELECT count(*) FROM sametick.events`))
	require.Equal(t, 1, a.Count(`SELECT count(*) FROM sametick.prompt_budgets WHERE hook_id = 0 AND spent_runs = 8 AND spent_cost = 71 AND held_runs = 0`))
	require.Zero(t, a.Count(`SELECT count(*) FROM sametick.prompt_budgets WHERE hook_id = $1`, h.GetId()))
	require.Equal(t, 2, a.Count(`SELECT count(*) FROM sametick.audit_entries WHERE aggregate_type = 'prompt_backtest'`))
}

func TestBacktestOfAnAsyncHook(t *testing.T) {
	a := start(t)
	h := a.asyncHook(func(r *promptsv1.CreateHookRequest) {
		r.EventTypes, r.Condition = []string{"task.post_create"}, `event.payload.record_name != "quiet"`
	})
	past := func(name string, change func(*runs.Run)) int64 {
		e := a.event("post_create", 7, name, nil)
		if change != nil {
			a.finished(h.GetId(), e, change)
		}
		return e
	}
	past("old", func(r *runs.Run) { r.Output = json.RawMessage(`"ok"`) }) // beyond N
	past("same", func(r *runs.Run) { r.Output = json.RawMessage(`"ok" `) })
	other := past("other", func(r *runs.Run) { r.Output = json.RawMessage(`"else"`) })
	past("failed", func(r *runs.Run) { r.Status, r.Output, r.Error = runs.Failed, nil, "no" })
	past("none", nil)
	past("tried", func(r *runs.Run) { r.Trigger = runs.ByDryRun }) // no decision
	past("quiet", nil)
	gone := past("gone", func(r *runs.Run) {})
	b := a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId(), TemplateVersion: 1, Events: 6})
	kill := a.worker("w", func(r *backtest.Runner) { r.Queue = pruning{r.Queue, gone} })
	b = a.ended(b)
	kill()
	require.Equal(t, map[string]int{"output equal": 1, "output different": 1, "error different": 1, "no_baseline output": 2, "no_baseline error": 1}, cells(b))
	require.Equal(t, backtest.CauseGone, b.GetReport().GetFailures()[0].GetCause())
	require.EqualValues(t, 5, b.GetReport().GetCalls(), "what is gone is not paid for")
	require.EqualValues(t, 2, b.GetReport().GetFlipsTotal())
	require.Equal(t, other, b.GetReport().GetFlips()[1].GetEventId())
	require.Zero(t, a.Count(`SELECT count(*) FROM sametick.events WHERE aggregate_type = 'prompt_run'`))
	list := must[*promptsv1.ListBacktestsResponse](t)(a.client.ListBacktests(a.as(orgA), &promptsv1.ListBacktestsRequest{HookId: proto.Int64(h.GetId())}))
	require.True(t, proto.Equal(b, list.GetData()[0]))
}

// pruning is a queue whose retention has dropped an event.
type pruning struct {
	backtest.Queue
	event int64
}

func (p pruning) Load(ctx context.Context, j *backtest.Job, c backtest.Case) (backtest.Loaded, error) {
	if c.EventID == p.event {
		return backtest.Loaded{}, errs.New(errs.NotFound, "EVENT_NOT_FOUND", "there is no such event")
	}
	return p.Queue.Load(ctx, j, c)
}

// A worker that is killed leaves what it knows: that is not paid again, and what nobody knows counts at its worst case.
func TestBacktestSurvivesItsWorker(t *testing.T) {
	a := start(t)
	h := a.asyncHook(func(r *promptsv1.CreateHookRequest) { r.EventTypes = []string{"task.post_create"} })
	for i := range 10 {
		a.event("post_create", 7, fmt.Sprintf("task-%d-", i), nil)
	}
	var calls atomic.Int64
	stuck := make(chan struct{})
	a.model.Answer = func(ctx context.Context, _ prompting.Request) (prompting.Response, error) {
		if calls.Add(1) > 4 { // the second four
			select {
			case <-stuck:
			case <-ctx.Done():
				return prompting.Response{}, ctx.Err()
			}
		}
		return prompting.Response{Text: "ok", Usage: prompting.Usage{Input: 10, Output: 5}}, nil
	}
	b := a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId()})
	kill := a.worker("first")
	a.Eventually("four are done and four under way", func() bool { return calls.Load() == 8 })
	kill()
	require.EqualValues(t, 4, a.got(b.GetId()).GetReport().GetDone())
	close(stuck)
	a.worker("second")
	require.Equal(t, "running", a.got(b.GetId()).GetStatus(), "its lease is not over")
	_, err := a.Admin.Exec(t.Context(), `UPDATE sametick.prompt_backtests SET lease_until = now()`)
	require.NoError(t, err)
	b = a.ended(b)
	r := b.GetReport()
	require.Equal(t, []int32{10, 10, 14, 4}, []int32{r.GetMatched(), r.GetDone(), r.GetCalls(), r.GetUnknown()})
	require.EqualValues(t, 14, calls.Load())
	seen := map[string]int{}
	for _, asked := range a.model.Asked() {
		_, name, _ := strings.Cut(promptOf(asked), "task-")
		seen[name[:1]]++
	}
	require.Len(t, seen, 10)
	once := 0
	for _, n := range seen {
		require.LessOrEqual(t, n, 2)
		if n == 1 {
			once++
		}
	}
	require.Equal(t, 6, once, "known outcomes are not paid again")
	require.Equal(t, 10, a.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE trigger = 'backtest'`))
	require.Equal(t, 4, a.Count(`SELECT count(*) FROM sametick.prompt_backtest_events WHERE took_runs = 2 AND took_tokens > 4096`))
}

func TestBudgetOfABacktest(t *testing.T) {
	a := start(t)
	h := a.asyncHook(func(r *promptsv1.CreateHookRequest) {
		r.EventTypes, r.Budget = []string{"task.post_create"}, &promptsv1.Budget{Runs: proto.Int64(0)}
	})
	for range 9 {
		a.event("post_create", 7, "x", nil)
	}
	a.worker("w")
	for runs, want := range map[int64]int32{0: 0, 1: 1, 5: 5, 9: 9} {
		b := a.ended(a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId(), Budget: &promptsv1.Budget{Runs: &runs}}))
		require.Equal(t, []int32{want, want}, []int32{b.GetReport().GetDone(), b.GetReport().GetCalls()})
		require.Equal(t, map[bool]string{true: "", false: "backtest"}[want == 9], b.GetBudgetExhausted())
	}
	// In tokens: what is held at the worst case is given back, so that more fit than would at their worst.
	b := a.ended(a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId(), Budget: &promptsv1.Budget{Tokens: proto.Int64(6000)}}))
	require.EqualValues(t, 9, b.GetReport().GetDone())
	b = a.ended(a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId(), Budget: &promptsv1.Budget{Cost: proto.Int64(100)}}))
	require.Equal(t, []string{"completed", "backtest"}, []string{b.GetStatus(), b.GetBudgetExhausted()})
	require.Zero(t, b.GetReport().GetCalls())
}

func TestCancelABacktest(t *testing.T) {
	a := start(t)
	h := a.asyncHook(func(r *promptsv1.CreateHookRequest) { r.EventTypes = []string{"task.post_create"} })
	for range 8 {
		a.event("post_create", 7, "x", nil)
	}
	hold, begun := make(chan struct{}), make(chan struct{}, 8)
	a.model.Answer = func(context.Context, prompting.Request) (prompting.Response, error) {
		begun <- struct{}{}
		<-hold
		return prompting.Response{Text: "ok"}, nil
	}
	b := a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId()})
	a.worker("w")
	for range 4 {
		<-begun
	}
	cancelled := must[*promptsv1.Backtest](t)(a.client.CancelBacktest(a.as(orgA), &promptsv1.CancelBacktestRequest{Id: b.GetId()}))
	require.Equal(t, "cancelled", cancelled.GetStatus())
	close(hold)
	a.Eventually("what was under way is known", func() bool { return a.got(b.GetId()).GetReport().GetDone() == 4 })
	next := a.ended(a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId(), Events: 1})) // the worker has gone on
	require.Equal(t, "completed", next.GetStatus())
	require.Equal(t, "cancelled", a.got(b.GetId()).GetStatus())
	require.EqualValues(t, 4, a.got(b.GetId()).GetReport().GetCalls())
	again := must[*promptsv1.Backtest](t)(a.client.CancelBacktest(a.as(orgA), &promptsv1.CancelBacktestRequest{Id: next.GetId()}))
	require.Equal(t, "completed", again.GetStatus(), "what has ended stays so")
	require.Len(t, a.events(hooks.TypeBacktest, b.GetId()), 4)

	open := a.Count(`SELECT count(*) FROM sametick.prompt_backtests WHERE finished_at IS NULL`)
	require.Zero(t, must[int64](t)(a.Store.PruneBacktests(t.Context(), time.Now().Add(-time.Hour))), "they are young")
	require.EqualValues(t, 2, must[int64](t)(a.Store.PruneBacktests(t.Context(), time.Now().Add(time.Hour))))
	require.Equal(t, open, a.Count(`SELECT count(*) FROM sametick.prompt_backtests`))
	require.Zero(t, a.Count(`SELECT count(*) FROM sametick.prompt_backtest_events`))
}

// server is an MCP server that notes who calls it.
type server struct{ called atomic.Int64 }

func (s *server) Granted(context.Context, *hooks.Setup) ([]prompting.Granted, error) {
	return []prompting.Granted{{Tool: prompting.Tool{Name: "find", Schema: json.RawMessage(`{"type":"object"}`)}}}, nil
}

func (s *server) Call(context.Context, prompting.ServerRef, string, json.RawMessage) (json.RawMessage, error) {
	s.called.Add(1)
	return json.RawMessage(`"live"`), nil
}

func TestBacktestsCallNoTools(t *testing.T) {
	a := start(t)
	tools := &server{}
	a.executor.Tools = tools
	m := must[*promptsv1.McpServer](t)(a.client.CreateMcpServer(a.as(orgA), &promptsv1.CreateMcpServerRequest{Name: "x", Transport: "stdio", Command: []string{"/bin/tools"}}))
	h := a.asyncHook(func(r *promptsv1.CreateHookRequest) {
		r.EventTypes, r.Tools = []string{"task.post_create"}, []*promptsv1.ToolGrant{{McpServerId: m.GetId(), Tools: []string{"find"}}}
	})
	e := a.event("post_create", 7, "known", nil)
	a.finished(h.GetId(), e, func(r *runs.Run) {
		r.ToolCalls = []runs.ToolCall{{Tool: "find", Arguments: json.RawMessage(`{"q":"a", "n":1}`), Result: json.RawMessage(`"recorded"`)}}
	})
	a.event("post_create", 7, "new", nil)
	var told sync.Map
	a.model.Answer = func(_ context.Context, r prompting.Request) (prompting.Response, error) {
		if len(r.Turns) == 1 {
			return prompting.Response{Calls: []prompting.ToolCall{{ID: "1", Name: r.Tools[0].Name, Arguments: json.RawMessage(`{"n":1,"q":"a"}`)}}}, nil
		}
		told.Store(strings.Contains(promptOf(r), "known"), r.Turns[2].Text)
		return prompting.Response{Text: "ok"}, nil
	}
	kill := a.worker("w")
	require.Equal(t, "completed", a.ended(a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId()})).GetStatus())
	kill()
	require.Zero(t, tools.called.Load())
	known, _ := told.Load(true)
	require.Contains(t, known, "recorded")
	unknown, _ := told.Load(false)
	require.Contains(t, strings.ReplaceAll(unknown.(string), "^", " "), "not available in a backtest", "fenced, as all that a tool says")

	a.worker("without the stub", func(r *backtest.Runner) { r.Stub = func(t runs.Tools, _ []runs.ToolCall) runs.Tools { return t } })
	a.ended(a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId()}))
	require.Positive(t, tools.called.Load(), "the control")
}

func TestFaultyBacktests(t *testing.T) {
	a := start(t)
	h := a.asyncHook()
	ask := func(org int64, req *promptsv1.BacktestHookRequest) *errs.Error {
		_, err := a.client.BacktestHook(a.as(org), req)
		require.Error(t, err)
		return errs.From(err)
	}
	require.True(t, errs.HasReason(ask(orgB, &promptsv1.BacktestHookRequest{Id: h.GetId()}), "HOOK_NOT_FOUND"))
	require.True(t, errs.HasReason(ask(orgA, &promptsv1.BacktestHookRequest{Id: h.GetId(), TemplateVersion: 3}), "VERSION_UNKNOWN"), "of another template, say")
	rules := must[*promptsv1.Hook](t)(a.client.CreateHook(a.as(orgA), review()))
	require.True(t, errs.HasReason(ask(orgA, &promptsv1.BacktestHookRequest{Id: rules.GetId()}), "HOOK_HAS_NO_TEMPLATE"))
	for field, req := range map[string]*promptsv1.BacktestHookRequest{"events": {Events: 201}, "template_version": {TemplateVersion: -1}, "provider_id": {ProviderId: 1 << 40},
		"budget": {Budget: &promptsv1.Budget{Cost: proto.Int64(-1)}}} {
		req.Id = h.GetId()
		require.Contains(t, faults(ask(orgA, req)), field)
	}
	b := a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId()})
	_, err := a.client.GetBacktest(a.as(orgB), &promptsv1.GetBacktestRequest{Id: b.GetId()})
	require.True(t, errs.HasReason(errs.From(err), "BACKTEST_NOT_FOUND"))
	_, err = a.client.CancelBacktest(a.as(orgB), &promptsv1.CancelBacktestRequest{Id: b.GetId()})
	require.True(t, errs.HasReason(errs.From(err), "BACKTEST_NOT_FOUND"))
	for range backtest.MaxOpen - 1 {
		a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId()})
	}
	require.True(t, errs.HasReason(ask(orgA, &promptsv1.BacktestHookRequest{Id: h.GetId()}), "TOO_MANY_BACKTESTS"))
}

func TestProtectedLabelsWantBacktests(t *testing.T) {
	a := start(t)
	tpl := a.template()
	set := func(version int32, force bool) error {
		_, err := a.client.SetTemplateLabel(a.as(orgA), &promptsv1.SetTemplateLabelRequest{TemplateId: tpl, Label: "production", Version: version, Force: force})
		return err
	}
	require.NoError(t, set(1, false))
	h := a.asyncHook(func(r *promptsv1.CreateHookRequest) {
		r.TemplateId, r.TemplateVersion, r.TemplateLabel, r.EventTypes = tpl, 0, "production", []string{"task.post_create"}
	})
	wanted := func(why string) {
		t.Helper()
		err := errs.From(set(2, false))
		require.True(t, errs.HasReason(err, "BACKTEST_REQUIRED"), why)
		require.Equal(t, fmt.Sprint(h.GetId()), err.Meta["hook_ids"])
		require.Contains(t, err.Message, fmt.Sprintf("POST /api/prompts/hooks/%d:backtest", h.GetId()))
	}
	for range 3 {
		a.event("post_create", 7, "x", nil)
	}
	wanted("there is none")
	a.worker("w")
	for why, req := range map[string]*promptsv1.BacktestHookRequest{"another version": {TemplateVersion: 1}, "its budget ended it": {Budget: &promptsv1.Budget{Runs: proto.Int64(1)}},
		"another model": {Model: "n"}} {
		req.Id = h.GetId()
		a.ended(a.backtest(req))
		wanted(why)
	}
	a.model.Answer = func(context.Context, prompting.Request) (prompting.Response, error) {
		return prompting.Response{}, &prompting.ModelError{Cause: prompting.CauseRefused, Text: "no"}
	}
	a.ended(a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId()}))
	wanted("all failed")
	a.model.Answer = nil
	b := a.ended(a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId()}))
	_, err := a.Admin.Exec(t.Context(), `UPDATE sametick.prompt_backtests SET finished_at = finished_at - interval '7 days' WHERE id = $1`, b.GetId())
	require.NoError(t, err)
	wanted("it is too old")
	require.NoError(t, set(2, true))
	require.NoError(t, set(1, true))
	require.Equal(t, 1, a.Count(`SELECT count(*) FROM sametick.events WHERE event_type = 'prompt_template.post_update' AND payload->'forced' = jsonb_build_object(
		'label', 'production', 'hooks_without_backtest', jsonb_build_array($1::bigint))`, h.GetId()))
	a.ended(a.backtest(&promptsv1.BacktestHookRequest{Id: h.GetId()}))
	require.NoError(t, set(2, false), "the control")
	must[*promptsv1.Hook](t)(a.client.UpdateHook(a.as(orgA), &promptsv1.UpdateHookRequest{Id: h.GetId(), Enabled: proto.Bool(false)}))
	_, err = a.Admin.Exec(t.Context(), `DELETE FROM sametick.prompt_backtests`)
	require.NoError(t, err)
	require.NoError(t, set(1, false), "nothing that is enabled follows it")
}
