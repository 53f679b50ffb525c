package grpcapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/errs"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// finished keeps a finished run of org A's.
func (a *api) finished(hook, event int64, change func(*runs.Run)) int64 {
	a.t.Helper()
	ids, err := a.Store.RunIDs(a.t.Context(), 1)
	require.NoError(a.t, err)
	r := &runs.Run{ID: ids[0], OrgID: orgA, HookID: hook, Mode: "async", Trigger: runs.ByEvent, Status: runs.Completed, EventID: event, EventType: "task.post_create",
		AggregateType: "task", AggregateID: 7, Output: json.RawMessage(`{"a":1}`), CreatedAt: time.Now(), FinishedAt: time.Now()}
	if change != nil {
		change(r)
	}
	require.NoError(a.t, a.Store.SaveRuns(a.t.Context(), []*runs.Run{r}))
	return r.ID
}

func TestRuns(t *testing.T) {
	a := start(t)
	now := time.Now()
	var ids []int64
	for i := range 7 {
		ids = append([]int64{a.finished(int64(1+i%2), int64(100+i), func(r *runs.Run) {
			r.FinishedAt = now.Add(time.Duration(i/2) * time.Millisecond) // some at the same time
			r.Verdict = []string{"approve", "reject", ""}[i%3]
			r.Status = []string{runs.Completed, runs.Failed}[i/6]
		})}, ids...)
	}
	all := func(req *promptsv1.ListRunsRequest) (seen []int64) {
		req.Limit = proto.Int32(2)
		for more := true; more; {
			page := must[*promptsv1.ListRunsResponse](t)(a.client.ListRuns(a.as(orgA), req))
			for _, r := range page.GetData() {
				seen = append(seen, r.GetId())
			}
			more, req.Cursor = page.NextCursor != nil, page.GetNextCursor()
		}
		return seen
	}
	require.Equal(t, ids, all(&promptsv1.ListRunsRequest{}))
	require.Equal(t, []int64{ids[0], ids[2], ids[4], ids[6]}, all(&promptsv1.ListRunsRequest{HookId: proto.Int64(1)}))
	require.Equal(t, ids[1:2], all(&promptsv1.ListRunsRequest{EventId: proto.Int64(105)}))
	require.Equal(t, []int64{ids[2], ids[5]}, all(&promptsv1.ListRunsRequest{Verdict: "reject"}))
	require.Equal(t, ids[:1], all(&promptsv1.ListRunsRequest{Status: "failed"}))
	require.Equal(t, ids, all(&promptsv1.ListRunsRequest{AggregateType: "task", AggregateId: proto.Int64(7), Trigger: "event"}))
	require.Empty(t, all(&promptsv1.ListRunsRequest{From: timestamppb.New(now.Add(time.Hour))}))
	require.Empty(t, all(&promptsv1.ListRunsRequest{Status: "pending"}))
	r := must[*promptsv1.Run](t)(a.client.GetRun(a.as(orgA), &promptsv1.GetRunRequest{Id: ids[0]}))
	require.Equal(t, `{"a": 1}`, spaced(r.GetOutput().GetText()))
	require.NotNil(t, r.GetFinishedAt())
	for field, bad := range map[string]*promptsv1.ListRunsRequest{"status": {Status: "x"}, "verdict": {Verdict: "x"}, "trigger": {Trigger: "x"},
		"cursor": {Cursor: "!"}, "limit": {Limit: proto.Int32(-1)}, "hook_id": {HookId: proto.Int64(-1)}} {
		_, err := a.client.ListRuns(a.as(orgA), bad)
		require.Contains(t, faults(err), field)
	}
}

// spaced writes JSON as one form, whichever Postgres kept.
func spaced(text string) string {
	var v map[string]any
	if json.Unmarshal([]byte(text), &v) != nil {
		return text
	}
	return fmt.Sprintf(`{"a": %v}`, v["a"])
}

// A review hook is tried on the write that a past event was of: what the event tells of it is what the hook sees.
func TestDryRunOfAReview(t *testing.T) {
	a := start(t)
	h := must[*promptsv1.Hook](t)(a.client.CreateHook(a.as(orgA), review(func(r *promptsv1.CreateHookRequest) {
		r.Enabled = proto.Bool(false)
		r.Rules = append(r.Rules, &promptsv1.Rule{Id: "raise", Reason: "a raise of more than half",
			Expression: `"attributes.salary" in changed && double(after.attributes.salary) > double(before.attributes.salary) * 1.5`})
	}))).GetId()
	try := func(event int64) (*promptsv1.Run, error) {
		return a.client.DryRunHook(a.as(orgA), &promptsv1.DryRunHookRequest{Id: h, EventId: event})
	}
	raise := func(to int) map[string]any {
		return map[string]any{"attributes": map[string]any{"before": map[string]any{"salary": 100}, "after": map[string]any{"salary": to}}}
	}
	run, err := try(a.event("pre_update", 7, "Ada", raise(300)))
	require.NoError(t, err)
	require.Equal(t, []string{"reject", "completed", "dry_run"}, []string{run.GetVerdict(), run.GetStatus(), run.GetTrigger()})
	require.Equal(t, []string{"raise"}, run.GetRuleIds())
	kept := must[*promptsv1.Run](t)(a.client.GetRun(a.as(orgA), &promptsv1.GetRunRequest{Id: run.GetId()}))
	require.Equal(t, run.GetEventId(), kept.GetEventId())
	run, err = try(a.event("pre_update", 7, "Ada", raise(110)))
	require.NoError(t, err)
	require.Equal(t, "approve", run.GetVerdict(), "the control")
	run, err = try(a.event("pre_create", 8, "", nil))
	require.NoError(t, err)
	require.Equal(t, []string{"title"}, run.GetRuleIds())
	for _, other := range []string{"post_create", "pre_archive"} {
		_, err = try(a.event(other, 7, "Ada", nil))
		require.True(t, errs.HasReason(errs.From(err), "HOOK_DOES_NOT_MATCH"), err)
	}
	_, err = try(1 << 40)
	require.True(t, errs.HasReason(errs.From(err), "EVENT_NOT_FOUND"), err)
	require.Zero(t, a.Count(`SELECT count(*) FROM sametick.events WHERE aggregate_type = 'prompt_run'`))

	// With a model: its verdict, within its budget.
	a.model.Answer = func(context.Context, prompting.Request) (prompting.Response, error) {
		return prompting.Response{JSON: json.RawMessage(`{"verdict":"reject","rule_ids":[],"reason":"rude","injection_suspected":false}`), Usage: prompting.Usage{Input: 9, Output: 1}}, nil
	}
	h = must[*promptsv1.Hook](t)(a.client.CreateHook(a.as(orgA), a.async(func(r *promptsv1.CreateHookRequest) {
		r.Mode, r.EventTypes, r.Budget = "review", []string{"*.pre_create"}, &promptsv1.Budget{Runs: proto.Int64(1)}
	}))).GetId()
	e := a.event("pre_create", 9, "Shut up", nil)
	a.Eventually("run ids are drawn", func() bool { return a.Count(`SELECT last_value FROM sametick.prompt_run_ids`) > 100 })
	run, err = try(e)
	require.NoError(t, err)
	require.Equal(t, []string{"reject", "rude"}, []string{run.GetVerdict(), run.GetReason()})
	require.EqualValues(t, 10, run.GetUsage().GetCost())
	run, err = try(e)
	require.NoError(t, err)
	require.Equal(t, []string{"failed", "budget"}, []string{run.GetStatus(), run.GetCause()})
}

func TestDryRunOfAnAsyncHook(t *testing.T) {
	a := start(t)
	h := must[*promptsv1.Hook](t)(a.client.CreateHook(a.as(orgA), a.async(func(r *promptsv1.CreateHookRequest) {
		r.Condition, r.Budget = `event.payload.record_name != "quiet"`, &promptsv1.Budget{Runs: proto.Int64(2)}
	})))
	try := func(event int64) (*promptsv1.Run, error) {
		return a.client.DryRunHook(a.as(orgA), &promptsv1.DryRunHookRequest{Id: h.GetId(), EventId: event})
	}
	e := a.event("post_create", 7, "Call", nil)
	run, err := try(e)
	require.NoError(t, err)
	require.Equal(t, []string{`"ok"`, "completed", "dry_run", "m"}, []string{run.GetOutput().GetText(), run.GetStatus(), run.GetTrigger(), run.GetModel()})
	require.EqualValues(t, 1, run.GetAttempts())
	require.Equal(t, 1, a.Count(`SELECT count(*) FROM sametick.prompt_budgets WHERE hook_id = $1 AND spent_runs = 1 AND held_runs = 0`, h.GetId()))
	require.Empty(t, a.events("prompt_run", run.GetId()), "nothing comes of it but the run")
	a.model.Answer = func(context.Context, prompting.Request) (prompting.Response, error) { panic("at the disco") }
	run, err = try(e)
	require.NoError(t, err)
	require.Equal(t, []string{"failed", "invalid_output"}, []string{run.GetStatus(), run.GetCause()})
	run, err = try(e)
	require.NoError(t, err)
	require.Equal(t, "budget", run.GetCause())
	_, err = try(a.event("post_create", 8, "quiet", nil))
	require.True(t, errs.HasReason(errs.From(err), "HOOK_DOES_NOT_MATCH"), err)
	require.Equal(t, 3, a.Count(`SELECT count(*) FROM sametick.prompt_runs`))
	_, err = a.client.ArchiveHook(a.as(orgA), &promptsv1.ArchiveHookRequest{Id: h.GetId()})
	require.NoError(t, err)
	_, err = try(e)
	require.True(t, errs.HasReason(errs.From(err), "ARCHIVED"), err)
}
