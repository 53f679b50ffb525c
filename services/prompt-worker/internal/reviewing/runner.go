package reviewing

import (
	"context"
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// settleWithin is how long after its hook's deadline a call is settled, at the latest.
const settleWithin = time.Minute

// Runner implements review.Runner: it asks a hook's providers, within the budgets. Safe for concurrent use.
type Runner struct {
	Hooks    *Hooks
	Store    *store.Store
	Executor *runs.Executor
	Recorder *Recorder
}

// Review implements review.Runner.
func (r *Runner) Review(ctx context.Context, a review.Ask) (res prompting.Response, err error) {
	s, err := r.Hooks.setup(ctx, a.OrgID, a.Hook.ID)
	if err != nil {
		return res, runs.Failure(err)
	}
	name, schema := prompting.VerdictSchema()
	asking, err := r.Executor.Ask(ctx, s, a.Prompt, name, schema)
	if err != nil {
		return res, err
	}
	id, ok := r.Recorder.id()
	if !ok {
		return res, &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "no budget can be held now"}
	}
	attempt := prompting.Attempt{Run: id, No: 1}
	refused, err := r.Store.Reserve(ctx, store.Reservation{Attempt: attempt, OrgID: a.OrgID, HookID: s.ID, Worst: asking.Worst, Limits: s.Budget,
		Until: time.Now().Add(s.Timeout() + settleWithin)})
	if err != nil {
		return res, &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "no budget can be held now"}
	}
	if refused != "" {
		return res, &prompting.ModelError{Cause: prompting.CauseBudget, Text: "the budget of the " + refused + " for this day does not cover the review"}
	}
	took := asking.Worst // also after a panic: nobody knows
	defer func() { r.Recorder.settle(store.Settlement{Attempt: attempt, Took: took}) }()
	answer, err := asking.Do(ctx)
	took = answer.Took
	res = answer.Response
	res.Usage, res.From = answer.Usage, answer.From
	return res, err
}
