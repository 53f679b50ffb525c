package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/backtest"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

const (
	// lease is how long a job is its holder's after each sign of life.
	lease = time.Minute
	// windowSize is how many events, of whatever kind, one statement looks at.
	windowSize = 5000

	// claimBacktest takes one of an organisation at a time.
	claimBacktest = `
SELECT b.org_id, b.id FROM sametick.prompt_backtests b WHERE b.status IN ('queued', 'running') AND b.lease_until <= clock_timestamp()
   AND NOT EXISTS (SELECT FROM sametick.prompt_backtests o WHERE o.org_id = b.org_id AND o.status = 'running' AND o.lease_until > clock_timestamp())
 ORDER BY b.id LIMIT 1 FOR UPDATE OF b SKIP LOCKED`
	holdBacktest = `UPDATE sametick.prompt_backtests SET status = 'running', holder = $3, lease_until = $4 WHERE org_id = $1 AND id = $2`
	// orphans counts attempts that the holder before left behind: nobody knows how they ended.
	orphans = `
UPDATE sametick.prompt_backtest_events SET calling = false, unknown = unknown + 1, took_runs = took_runs + 1, took_tokens = took_tokens + held_tokens,
  took_cost = took_cost + held_cost, held_tokens = 0, held_cost = 0 WHERE org_id = $1 AND backtest_id = $2 AND calling`
	// mine locks a job for its holder, and prolongs its lease.
	mine = `UPDATE sametick.prompt_backtests SET lease_until = greatest(lease_until, $4) WHERE org_id = $1 AND id = $2 AND holder = $3 AND status = 'running'`

	eventWindow = `
WITH w AS MATERIALIZED (SELECT id, org_id, aggregate_type, aggregate_id, event_type, payload, occurred_at FROM sametick.events
   WHERE org_id = $1 AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3)
SELECT w.id, w.org_id, w.aggregate_type, w.aggregate_id, w.event_type, w.payload::text, w.occurred_at FROM w
 WHERE EXISTS (SELECT FROM unnest($4::text[], $5::text[]) p(aggregate, action)
   WHERE p.aggregate IN ('*', split_part(w.event_type, '.', 1)) AND p.action IN ('*', substr(w.event_type, strpos(w.event_type, '.') + 1))) ORDER BY w.id DESC`
	endOfWindow = `SELECT coalesce(min(id), 0), count(*) FROM (SELECT id FROM sametick.events WHERE org_id = $1 AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3) w`

	selectCases = `
INSERT INTO sametick.prompt_backtest_events (org_id, backtest_id, event_id, run_id)
SELECT $1, $2, u.id, nextval('sametick.prompt_run_ids') FROM unnest($3::bigint[]) u(id) ON CONFLICT DO NOTHING`
	waitingCases = `SELECT c.backtest_id, c.event_id, c.run_id, c.attempts::int, c.unknown::int, c.took_runs, c.took_tokens, c.took_cost, c.result
  FROM sametick.prompt_backtest_events c WHERE c.org_id = $1 AND c.backtest_id = $2 AND NOT c.done AND NOT c.calling ORDER BY c.event_id DESC LIMIT $3`

	// spentCases is what a backtest has taken and may still take.
	spentCases = `SELECT coalesce(sum(took_runs + calling::int), 0)::bigint, coalesce(sum(took_tokens + held_tokens), 0)::bigint, coalesce(sum(took_cost + held_cost), 0)::bigint
  FROM sametick.prompt_backtest_events WHERE org_id = $1 AND backtest_id = $2`
	beginCase = `UPDATE sametick.prompt_backtest_events SET attempts = attempts + 1, calling = true, held_tokens = $5, held_cost = $6
 WHERE org_id = $1 AND backtest_id = $2 AND event_id = $3 AND attempts = $4 AND NOT calling AND NOT done`
	finishCase = `
UPDATE sametick.prompt_backtest_events SET done = true, calling = false, result = $6, took_runs = took_runs + $7, took_tokens = took_tokens + $8,
  took_cost = took_cost + $9, held_tokens = 0, held_cost = 0
 WHERE org_id = $1 AND backtest_id = $2 AND event_id = $3 AND attempts = $4 AND calling = $5 AND NOT done`

	runOfEvent = runColumns + ` AND r.event_id = $2 AND r.hook_id = $3 AND r.trigger = 'event' ORDER BY r.finished_at DESC LIMIT 1`
)

// Backtests implements backtest.Queue. Safe for concurrent use.
type Backtests struct{ *Store }

// Claim implements backtest.Queue.
func (s Backtests) Claim(ctx context.Context, holder string) (j *backtest.Job, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) error {
		j = nil
		var orgID, id int64
		found, err := many(ctx, tx, func(row pgx.CollectableRow) (bool, error) { return true, row.Scan(&orgID, &id) }, claimBacktest)
		if err != nil || len(found) == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, holdBacktest, orgID, id, holder, time.Now().Add(lease)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, orphans, orgID, id); err != nil {
			return err
		}
		b, err := one(ctx, tx, readBacktest, errNoBacktest, backtestByID, orgID, id)
		if err == nil {
			j = &backtest.Job{Backtest: *b, Holder: holder}
		}
		return err
	})
	return j, err
}

// held runs fn for a job's holder, in a transaction that sees its organisation alone.
func (s Backtests) held(ctx context.Context, j *backtest.Job, until time.Time, fn func(tx pgx.Tx) error) error {
	return s.org(ctx, j.OrgID, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, mine, j.OrgID, j.ID, j.Holder, until)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return backtest.ErrLost
		}
		return fn(tx)
	})
}

func readEvent(row pgx.CollectableRow) (e event.Event, err error) {
	var payload string
	err = row.Scan(&e.ID, &e.OrgID, &e.AggregateType, &e.AggregateID, &e.EventType, &payload, &e.OccurredAt)
	e.Payload = []byte(payload)
	return e, err
}

// Window implements backtest.Queue.
func (s Backtests) Window(ctx context.Context, j *backtest.Job, before int64) (list []event.Event, next int64, err error) {
	aggregates, actions := patternsOf(j.Settings.EventTypes)
	err = s.held(ctx, j, time.Now().Add(lease), func(tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, endOfWindow, j.OrgID, before, windowSize).Scan(&next, &n); err != nil {
			return err
		}
		if n < windowSize {
			next = 0
		}
		list, err = many(ctx, tx, readEvent, eventWindow, j.OrgID, before, windowSize, aggregates, actions)
		return err
	})
	return list, next, err
}

// Select implements backtest.Queue.
func (s Backtests) Select(ctx context.Context, j *backtest.Job, events []int64) error {
	return s.held(ctx, j, time.Now().Add(lease), func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, selectCases, j.OrgID, j.ID, append([]int64{}, events...)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE sametick.prompt_backtests SET selected = true WHERE org_id = $1 AND id = $2`, j.OrgID, j.ID)
		return err
	})
}

// Waiting implements backtest.Queue.
func (s Backtests) Waiting(ctx context.Context, j *backtest.Job, limit int) (out []backtest.Case, err error) {
	err = s.held(ctx, j, time.Now().Add(lease), func(tx pgx.Tx) error {
		list, err := many(ctx, tx, readCase, waitingCases, j.OrgID, j.ID, limit)
		out = nil
		for _, c := range list {
			out = append(out, c.Case)
		}
		return err
	})
	return out, err
}

// Load implements backtest.Queue. What the hook runs by is read as it is now: a key must not outlive its replacement.
func (s Backtests) Load(ctx context.Context, j *backtest.Job, c backtest.Case) (l backtest.Loaded, err error) {
	if l.Event, err = s.Event(ctx, j.OrgID, c.EventID); err != nil {
		return l, err
	}
	err = s.org(ctx, j.OrgID, func(tx pgx.Tx) error {
		now, err := one(ctx, tx, readHook, errNoHook, hookByID, j.OrgID, j.HookID)
		if err != nil {
			return err
		}
		now.Settings, now.Version = j.Settings, j.HookVersion
		if l.Setup, err = setupOf(ctx, tx, now); err != nil {
			return err
		}
		sql, args := runOfEvent, []any{j.OrgID, c.EventID, j.HookID}
		if j.Settings.Mode == hooks.ModeReview {
			sql, args = runByID, []any{j.OrgID, backtest.ReviewRun(&l.Event, j.HookID)}
		}
		found, err := many(ctx, tx, readRun, sql, args...)
		if l.Baseline = nil; len(found) > 0 {
			l.Baseline = found[0]
		}
		return err
	})
	return l, err
}

// backtestsOf is the id under which budgets have what backtests of a hook take: apart from what the hook itself does.
func backtestsOf(hookID int64) int64 { return -hookID }

// Begin implements backtest.Queue. The job's own budget is what its rows have taken and hold: its lock makes it exact.
func (s Backtests) Begin(ctx context.Context, j *backtest.Job, b backtest.Beginning) (answer backtest.Answer, err error) {
	err = s.held(ctx, j, b.Until, func(tx pgx.Tx) error {
		answer = backtest.Answer{}
		var sum prompting.Amount
		if err := tx.QueryRow(ctx, spentCases, j.OrgID, j.ID).Scan(&sum.Runs, &sum.Tokens, &sum.Cost); err != nil {
			return err
		}
		if !j.Request.Budget.Allow(sum.Plus(b.Worst)) {
			answer.Refused = "backtest"
			return nil
		}
		tag, err := tx.Exec(ctx, beginCase, j.OrgID, j.ID, b.EventID, b.Attempts, b.Worst.Tokens, b.Worst.Cost)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return backtest.ErrLost
		}
		list, day := []Reservation{{prompting.Attempt{Run: b.RunID, No: b.Attempts + 1}, j.OrgID, backtestsOf(j.HookID), b.Worst,
			prompting.Limits{}, b.Until}}, today()
		refused, err := s.reserve(ctx, tx, day, list)
		if err != nil {
			return err
		}
		if answer.Refused = refused[0]; answer.Refused != "" {
			_, err = tx.Exec(ctx, `UPDATE sametick.prompt_backtest_events SET attempts = attempts - 1, calling = false, held_tokens = 0, held_cost = 0
				WHERE org_id = $1 AND backtest_id = $2 AND event_id = $3`, j.OrgID, j.ID, b.EventID)
			return err
		}
		answer.Begun = true
		keep := &pgx.Batch{}
		book(keep, day, list, refused)
		return tx.SendBatch(ctx, keep).Close()
	})
	return answer, err
}

// Finish implements backtest.Queue. It needs no lease: an attempt that another worker has taken over is not its any more.
func (s Backtests) Finish(ctx context.Context, j *backtest.Job, f backtest.Finishing) error {
	return s.org(ctx, j.OrgID, func(tx pgx.Tx) error {
		var took prompting.Amount
		if f.Took != nil {
			took = *f.Took
		}
		tag, err := tx.Exec(ctx, finishCase, j.OrgID, j.ID, f.EventID, f.Attempts, f.Took != nil, asJSON(f.Result), took.Runs, took.Tokens, took.Cost)
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		if tag.RowsAffected() > 0 && f.Run != nil {
			queueRuns(b, []*runs.Run{f.Run})
		}
		if f.Took != nil {
			queueSettle(b, []Settlement{{prompting.Attempt{Run: f.RunID, No: f.Attempts}, took}})
		}
		return tx.SendBatch(ctx, b).Close()
	})
}

// End implements backtest.Queue.
func (s Backtests) End(ctx context.Context, j *backtest.Job, status, text, exhausted string) error {
	return s.held(ctx, j, time.Now(), func(tx pgx.Tx) error {
		before, err := one(ctx, tx, readBacktest, errNoBacktest, backtestByID, j.OrgID, j.ID)
		if err != nil {
			return err
		}
		_, err = closeBacktest(ctx, tx, hooks.Call{OrgID: j.OrgID}, before, status, text, exhausted)
		return err
	})
}

// Release implements backtest.Queue.
func (s Backtests) Release(ctx context.Context, j *backtest.Job) error {
	return s.org(ctx, j.OrgID, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE sametick.prompt_backtests SET lease_until = '-infinity' WHERE org_id = $1 AND id = $2 AND holder = $3`, j.OrgID, j.ID, j.Holder)
		return err
	})
}
