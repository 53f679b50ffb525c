package judge

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/deploy/torture/internal/prompts"
)

// hookCreated is the event from whose position on a hook runs.
const hookCreated = "prompt_hook.post_create"

// Runs judges async prompt hooks, pair by pair of a hook and a committed event that it selects, of those after its creation:
//
//   - each pair has exactly one finished run, and that exactly one event; no run is of anything else, or has another's
//     answer;
//   - a model is asked again only after a failure that it told, or one whose outcome nobody knows, and no more often than
//     the run says;
//   - a hook with a budget asks no more often than that.
type Runs struct {
	facts  *Facts
	log    *Log
	hooks  map[int64]*hookCase
	plan   []*hookCase
	ran    *Verdict
	called *Verdict
	budget *Verdict
	counts RunCounts
}

// RunCounts is what a run of the harness came to.
type RunCounts struct {
	// Pairs were to be run. Calls reached the model; Repeats are those beyond the first of a pair; Unknown the attempts
	// whose outcome nobody knows.
	Pairs, Calls, Repeats, Unknown int64
	// Failed are the runs that came to no output; OverBudget those of them that no budget covered.
	Failed, OverBudget int64
}

// calls are those of a pair, by answer.
type calls struct{ answered, refused, silent uint8 }

// hookCase is what is known of a hook. The slices go by index of Facts.
type hookCase struct {
	*prompts.Hook
	from  int64
	ran   []uint8
	calls map[int]calls
	total int64
}

// NewRuns starts with nothing called and nothing run.
func NewRuns(f *Facts, l *Log, plan []*prompts.Hook) *Runs {
	r := &Runs{facts: f, log: l, hooks: map[int64]*hookCase{}, ran: &Verdict{What: "prompt runs"},
		called: &Verdict{What: "calls of models"}, budget: &Verdict{What: "budgets"}}
	for _, h := range plan {
		c := &hookCase{Hook: h, from: r.begins(h), ran: make([]uint8, f.Len()), calls: map[int]calls{}}
		r.hooks[h.ID] = c
		r.plan = append(r.plan, c)
	}
	return r
}

// begins is the position of a hook's creation; 0 when it has no event, and gets everything.
func (r *Runs) begins(h *prompts.Hook) int64 {
	f := r.facts
	entity, ok := f.entityOf[Entity{OrgID: h.OrgID, Type: "prompt_hook", ID: h.ID}]
	for i := range f.list {
		if ok && f.list[i].entity == entity && f.kinds[f.list[i].kind] == hookCreated {
			return r.log.at[i]
		}
	}
	return 0
}

// wants tells whether an event is the hook's to run on. One without a position is lost already, by the relay.
func (r *Runs) wants(h *hookCase, i int) bool {
	of := r.facts.entities[r.facts.list[i].entity]
	return of.OrgID == h.OrgID && r.log.at[i] > h.from && h.Selects(of.Type, of.ID)
}

// Take judges the next call in the order in which they came.
func (r *Runs) Take(c prompts.Call) {
	v := r.called
	v.Checked++
	r.counts.Calls++
	i := r.facts.find(c.EventID)
	if c.Answer == prompts.Foreign || c.Hook < 0 || c.Hook >= len(r.plan) || i < 0 {
		v.note(&v.Foreign, "a call for hook number %d and event %d, one of which does not exist", c.Hook, c.EventID)
		return
	}
	h := r.plan[c.Hook]
	if !h.Model || !r.wants(h, i) {
		v.note(&v.Foreign, "a call of %s for %s, which it is not for", h.Name(), r.facts.describe(i))
		return
	}
	h.total++
	n := h.calls[i]
	counter := map[prompts.Answer]*uint8{prompts.Answered: &n.answered, prompts.Refused: &n.refused, prompts.Silent: &n.silent}[c.Answer]
	if n != (calls{}) {
		r.counts.Repeats++
	}
	*counter = min(*counter, math.MaxUint8-1) + 1
	h.calls[i] = n
}

// Run is one of a pair, as the product has it.
type Run struct {
	ID, HookID, EventID int64
	// Waiting: it has not ended. Completed and Cause are how it has.
	Waiting, Completed bool
	Cause, Output      string
	Attempts, Unknown  int
	// Events of its end.
	Events int
}

// Recall judges what the product has of a pair, once all calls are taken.
func (r *Runs) Recall(run *Run) {
	v := r.ran
	v.Checked++
	h, i := r.hooks[run.HookID], r.facts.find(run.EventID)
	if h == nil || i < 0 || !r.wants(h, i) {
		v.note(&v.Foreign, "run %d is of hook %d and event %d, which it is not for", run.ID, run.HookID, run.EventID)
		return
	}
	at := fmt.Sprintf("run %d of %s on %s", run.ID, h.Name(), r.facts.describe(i))
	if run.Waiting {
		v.note(&v.Lost, "%s has not ended: %+v", at, *run)
		return
	}
	if h.ran[i] = min(h.ran[i], math.MaxUint8-1) + 1; h.ran[i] == 2 {
		v.note(&v.Twice, "%s is not the only one", at)
	}
	switch {
	case run.Events == 0:
		v.note(&v.Lost, "%s has no event", at)
	case run.Events > 1:
		v.note(&v.Twice, "%s has %d events", at, run.Events)
	}
	r.counts.Unknown += int64(run.Unknown)
	if !run.Completed {
		r.counts.Failed++
		if run.Cause == "budget" {
			r.counts.OverBudget++
		}
	}
	if run.Completed && run.Output != r.output(h, run.EventID) {
		v.note(&v.Foreign, "%s has the output %.60q", at, run.Output)
	}
	r.checkCalls(h, i, run, at)
}

// output is what a completed run must have.
func (r *Runs) output(h *hookCase, eventID int64) string {
	var out any = prompts.Text(eventID)
	if !h.Model {
		out = map[string]int64{"event": eventID}
	}
	text, err := json.Marshal(out)
	if err != nil {
		panic(err) // a string and a number
	}
	return string(text)
}

// checkCalls: a call that was answered is the run's outcome, or one of those that nobody knows the outcome of.
func (r *Runs) checkCalls(h *hookCase, i int, run *Run, at string) {
	n, v := h.calls[i], r.called
	answered := run.Unknown
	if run.Completed && h.Model {
		answered++
		if n.answered == 0 {
			v.note(&v.Lost, "%s is completed, and no call of it was answered", at)
		}
	}
	if int(n.answered) > answered {
		v.note(&v.Twice, "%s: %d calls were answered, and only of %d attempts is the outcome unknown", at, n.answered, run.Unknown)
	}
	if all := int(n.answered) + int(n.refused) + int(n.silent); all > run.Attempts {
		v.note(&v.Twice, "%s: %d calls in %d attempts", at, all, run.Attempts)
	}
}

// Finish notes the pairs that are missing, and what was asked beyond a budget; days is how many UTC days the run touched.
func (r *Runs) Finish(days int64) ([]*Verdict, RunCounts) {
	for _, h := range r.plan {
		for i := range r.facts.list {
			if !r.wants(h, i) {
				continue
			}
			r.counts.Pairs++
			if h.ran[i] == 0 {
				r.ran.note(&r.ran.Lost, "%s, position %d, has no finished run of %s", r.facts.describe(i), r.log.at[i], h.Name())
			}
		}
		if h.Runs == 0 {
			continue
		}
		r.budget.Checked += h.total
		if h.total > h.Runs*days {
			r.budget.note(&r.budget.Foreign, "%s asked its model %d times, its budget is %d", h.Name(), h.total, h.Runs*days)
		}
	}
	return []*Verdict{r.ran, r.called, r.budget}, r.counts
}

// runsSQL is one row for each run and for each that waits.
const runsSQL = `
SELECT r.id, r.hook_id, r.event_id, false, r.status = 'completed', r.cause, coalesce(r.output::text, ''), r.attempts::int, r.unknown::int, coalesce(e.n, 0)::int
  FROM sametick.prompt_runs r LEFT JOIN (SELECT aggregate_id, count(*) n FROM sametick.events WHERE aggregate_type = 'prompt_run' GROUP BY 1) e ON e.aggregate_id = r.id
 WHERE r.trigger = 'event'
UNION ALL SELECT id, hook_id, event_id, true, false, cause, '', attempts::int, unknown::int, 0 FROM sametick.prompt_queue`

// LoadRuns reads the queue and the history of runs and judges them.
func LoadRuns(ctx context.Context, db Querier, r *Runs) error {
	rows, err := db.Query(ctx, runsSQL)
	if err != nil {
		return fmt.Errorf("read the runs of prompts: %w", err)
	}
	var run Run
	_, err = pgx.ForEachRow(rows, []any{&run.ID, &run.HookID, &run.EventID, &run.Waiting, &run.Completed, &run.Cause, &run.Output, &run.Attempts,
		&run.Unknown, &run.Events}, func() error { r.Recall(&run); return nil })
	if err != nil {
		return fmt.Errorf("read the runs of prompts: %w", err)
	}
	return nil
}
