package backtest

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// margin is how much longer than its call an attempt is its worker's.
const margin = 10 * time.Second

// attempt is one at an event.
type attempt struct {
	*Runner
	job    *Job
	c      Case
	loaded Loaded
	// answer is Begin's, and err why it could not be asked.
	answer Answer
	err    error
	took   *prompting.Amount
}

// hold implements the hold of a call: the case is marked as begun, and its worst case held.
func (a *attempt) hold(ctx context.Context, worst prompting.Amount) error {
	until := time.Now().Add(a.loaded.Setup.Timeout() + margin)
	if a.answer, a.err = a.Queue.Begin(ctx, a.job, Beginning{a.c, worst, until}); a.err != nil {
		return &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "no budget can be held now"}
	}
	if !a.answer.Begun {
		return &prompting.ModelError{Cause: prompting.CauseBudget, Text: "the budget does not cover it"}
	}
	a.took = &worst // also after a panic: nobody knows
	return nil
}

// executor is the worker's, but for its tools.
func (a *attempt) executor() *runs.Executor {
	x := *a.Executor
	if x.Tools != nil {
		var calls []runs.ToolCall
		if a.loaded.Baseline != nil {
			calls = a.loaded.Baseline.ToolCalls
		}
		x.Tools = a.Stub(x.Tools, calls)
	}
	return &x
}

// run gives the run; nil when the hook does not match the event any more.
func (a *attempt) run(ctx context.Context) (*runs.Run, error) {
	e := &a.loaded.Event
	var r *runs.Run
	if a.job.Settings.Mode == hooks.ModeAsync {
		item := &runs.Item{ID: a.c.RunID, OrgID: a.job.OrgID, HookID: a.job.HookID, EventID: e.ID, Event: e.AppendJSON(nil), EventType: e.EventType,
			AggregateType: e.AggregateType, AggregateID: e.AggregateID, CreatedAt: time.Now()}
		var took *prompting.Amount
		r, took = a.executor().DryRun(ctx, a.loaded.Setup, item, func(worst prompting.Amount) error { return a.hold(ctx, worst) })
		if took != nil {
			a.took = took
		}
	} else {
		w, actor, err := review.PastWrite(e)
		if err == nil {
			r, err = a.Reviews.TryBy(ctx, a.loaded.Setup, actor, w, a)
		}
		if err != nil {
			return nil, err
		}
		if r == nil {
			return nil, nil
		}
	}
	r.ID, r.EventID, r.Trigger, r.Attempts = a.c.RunID, e.ID, runs.ByBacktest, a.c.Attempts
	if a.answer.Begun {
		r.Attempts++
	}
	return r, nil
}

// Review implements review.Runner.
func (a *attempt) Review(ctx context.Context, q review.Ask) (res prompting.Response, err error) {
	name, schema := prompting.VerdictSchema()
	asking, err := a.executor().Ask(ctx, a.loaded.Setup, q.Prompt, name, schema)
	if err != nil {
		return res, err
	}
	if err := a.hold(ctx, asking.Worst); err != nil {
		return res, err
	}
	answer, err := asking.Do(ctx)
	a.took = &answer.Took
	res = answer.Response
	res.Usage, res.From = answer.Usage, answer.From
	return res, err
}

// result compares a run with what was decided then.
func (a *attempt) result(r *runs.Run) *Result {
	base := a.loaded.Baseline
	out := &Result{Baseline: NoBaseline, Verdict: Error, Usage: r.Usage, Cost: r.Cost}
	if a.answer.Begun {
		out.Latency = max(r.Latency.Microseconds(), 1)
		out.Cost = a.took.Cost
	}
	if r.Status != runs.Completed {
		out.Cause, out.Reason = r.Cause, r.Error
		if r.Cause == "" {
			out.Cause, out.Reason = "injection_suspected", r.Reason
		}
	}
	if a.job.Settings.Mode == hooks.ModeReview {
		out.Baseline, out.BaselineReason, out.BaselineRunID = decided(&a.loaded.Event, a.job.HookID)
		if r.Status == runs.Completed {
			out.Verdict, out.Reason = r.Verdict, r.Reason
		}
		return out
	}
	if base != nil {
		out.BaselineRunID = base.ID
		if out.Baseline = Output; base.Status != runs.Completed {
			out.Baseline, out.BaselineReason = Error, base.Error
		}
	}
	switch {
	case r.Cause == prompting.CauseInvalid:
		out.Verdict = Invalid
	case r.Status != runs.Completed:
	case base == nil:
		out.Verdict = Output
	case base.Status == runs.Completed && same(base.Output, r.Output):
		out.Verdict = Equal
	default:
		out.Verdict = Different
	}
	return out
}

// decided gives what a pre_* event says that a hook decided.
func decided(e *event.Event, hookID int64) (verdict, reason string, runID int64) {
	v := verdictOf(e, hookID)
	switch v.Verdict {
	case prompting.Approve, prompting.Reject:
		return v.Verdict, v.Reason, v.RunID
	case review.Failed:
		return Error, v.Reason, v.RunID
	default: // none, or another hook was first
		return NoBaseline, "", v.RunID
	}
}

type pastVerdict struct {
	HookID  int64  `json:"hook_id"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	RunID   int64  `json:"run_id"`
}

func verdictOf(e *event.Event, hookID int64) pastVerdict {
	var p struct {
		Reviews []pastVerdict `json:"reviews"`
	}
	if json.Unmarshal(e.Payload, &p) != nil {
		return pastVerdict{}
	}
	for _, v := range p.Reviews {
		if v.HookID == hookID {
			return v
		}
	}
	return pastVerdict{}
}

// ReviewRun gives the id of the run that reviewed a pre_* event's write for a hook; 0 where it names none.
func ReviewRun(e *event.Event, hookID int64) int64 { return verdictOf(e, hookID).RunID }
