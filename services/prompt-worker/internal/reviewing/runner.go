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
	request, err := runs.Ask(&s.Hook, s.Providers, a.Prompt, nil)
	if err != nil {
		return res, err
	}
	request.SchemaName, request.Schema = prompting.VerdictSchema()
	worst, err := r.Executor.Worst(&s.Hook, s.Providers, request)
	if err != nil {
		return res, err
	}
	model, err := r.Executor.Models.Model(ctx, s)
	if err != nil {
		return res, err
	}
	id, ok := r.Recorder.id()
	if !ok {
		return res, &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "no budget can be held now"}
	}
	attempt := prompting.Attempt{Run: id, No: 1}
	refused, err := r.Store.Reserve(ctx, store.Reservation{Attempt: attempt, OrgID: a.OrgID, HookID: s.ID, Worst: worst, Limits: s.Budget,
		Until: time.Now().Add(s.Timeout() + settleWithin)})
	if err != nil {
		return res, &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "no budget can be held now"}
	}
	if refused != "" {
		return res, &prompting.ModelError{Cause: prompting.CauseBudget, Text: "the budget of the " + refused + " for this day does not cover the review"}
	}
	took := worst // also after a panic: nobody knows
	defer func() { r.Recorder.settle(store.Settlement{Attempt: attempt, Took: took}) }()
	res, err = model.Complete(ctx, request)
	if failure := runs.Failure(err); failure != nil {
		if !failure.Unknown {
			took = r.amount(request.Model, failure.Usage)
		}
		return res, failure
	}
	took = r.amount(request.Model, res.Usage)
	return res, nil
}

func (r *Runner) amount(model string, u prompting.Usage) prompting.Amount {
	cost, _ := r.Executor.Prices.Cost(model, u)
	return prompting.Amount{Runs: 1, Tokens: u.Input + u.Cached + u.Output, Cost: cost}
}
