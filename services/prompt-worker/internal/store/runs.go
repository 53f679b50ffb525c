package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

const (
	runColumns = `SELECT r.id, r.org_id, r.hook_id, r.mode, r.trigger, r.status, coalesce(r.event_id, 0), r.event_type, r.aggregate_type, r.aggregate_id,
  r.template_version, r.provider_id, r.model, r.input, r.output, r.tool_calls, r.input_tokens, r.cached_tokens, r.output_tokens, r.cost, r.latency_us,
  r.verdict, r.reason, r.rule_ids, r.injection_suspected, r.cached, r.cause, r.error, r.attempts::int, r.unknown::int, r.created_at, r.finished_at
  FROM sametick.prompt_runs r WHERE r.org_id = $1`
	listRuns = runColumns + ` AND ($2::bigint IS NULL OR r.hook_id = $2) AND ($3::bigint IS NULL OR r.event_id = $3)
  AND ($4 = '' OR r.aggregate_type = $4) AND ($5::bigint IS NULL OR r.aggregate_id = $5) AND ($6 = '' OR r.status = $6) AND ($7 = '' OR r.verdict = $7)
  AND ($8 = '' OR r.trigger = $8) AND ($9::timestamptz IS NULL OR r.finished_at >= $9) AND ($10::timestamptz IS NULL OR r.finished_at <= $10)
  AND ($11::timestamptz IS NULL OR (r.finished_at, r.id) < ($11, $12)) ORDER BY r.finished_at DESC, r.id DESC LIMIT $13`
	runByID = runColumns + ` AND r.id = $2`

	pendingColumns = `SELECT q.id, q.org_id, q.hook_id, q.event_id, q.event_type, q.aggregate_type, q.aggregate_id, q.attempts::int, q.unknown::int,
  q.cause, q.error, q.created_at FROM sametick.prompt_queue q WHERE q.org_id = $1`
	listPending = pendingColumns + ` AND ($2::bigint IS NULL OR q.hook_id = $2) AND ($3::bigint IS NULL OR q.event_id = $3)
  AND ($4 = '' OR q.aggregate_type = $4) AND ($5::bigint IS NULL OR q.aggregate_id = $5) AND ($6::timestamptz IS NULL OR q.created_at >= $6)
  AND ($7::timestamptz IS NULL OR q.created_at <= $7) AND ($8::timestamptz IS NULL OR (q.created_at, q.id) < ($8, $9))
  ORDER BY q.created_at DESC, q.id DESC LIMIT $10`
	pendingByID = pendingColumns + ` AND q.id = $2`
)

// errNoRun is of another organisation's runs too.
var errNoRun = errs.New(errs.NotFound, "RUN_NOT_FOUND", "there is no such run")

// RunIDs draws ids for runs that never wait in the queue.
func (s *Store) RunIDs(ctx context.Context, n int) ([]int64, error) {
	rows, err := s.pool.Query(ctx, `SELECT nextval('sametick.prompt_run_ids') FROM generate_series(1, $1)`, n)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// SaveRuns keeps finished runs that never waited. Each is kept once, however often it is told.
func (s *Store) SaveRuns(ctx context.Context, list []*runs.Run) error {
	return s.worker(ctx, func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		queueRuns(b, list)
		return tx.SendBatch(ctx, b).Close()
	})
}

// asJSON is a value's, nil for nothing. It is text on the way: so it needs no prepared statement to know what it is.
func asJSON(v any) *string {
	text, err := json.Marshal(v)
	if err != nil || string(text) == "null" || string(text) == "[]" { // of our own types and of valid JSON, it does not fail
		return nil
	}
	out := string(text)
	return &out
}

func readRun(row pgx.CollectableRow) (*runs.Run, error) {
	r := &runs.Run{}
	var latency int64
	err := row.Scan(&r.ID, &r.OrgID, &r.HookID, &r.Mode, &r.Trigger, &r.Status, &r.EventID, &r.EventType, &r.AggregateType, &r.AggregateID,
		&r.TemplateVersion, &r.ProviderID, &r.Model, &r.Input, &r.Output, &r.ToolCalls, &r.Usage.Input, &r.Usage.Cached, &r.Usage.Output, &r.Cost, &latency,
		&r.Verdict, &r.Reason, &r.RuleIDs, &r.Suspected, &r.Cached, &r.Cause, &r.Error, &r.Attempts, &r.Unknown, &r.CreatedAt, &r.FinishedAt)
	r.Latency = time.Duration(latency) * time.Microsecond
	return r, err
}

func readPending(row pgx.CollectableRow) (*runs.Run, error) {
	r := &runs.Run{Mode: "async", Trigger: runs.ByEvent, Status: runs.Pending}
	err := row.Scan(&r.ID, &r.OrgID, &r.HookID, &r.EventID, &r.EventType, &r.AggregateType, &r.AggregateID, &r.Attempts, &r.Unknown, &r.Cause, &r.Error, &r.CreatedAt)
	return r, err
}

// RunFilter selects runs; what is zero selects all.
type RunFilter struct {
	HookID, EventID          *int64
	AggregateType            string
	AggregateID              *int64
	Status, Verdict, Trigger string
	// From and To are when a run finished, or, of those that wait, when they were scheduled.
	From, To *time.Time
	// BeforeAt and BeforeID are of the run that the page before ended with; nil for the first.
	BeforeAt *time.Time
	BeforeID int64
	Limit    int
}

// ListRuns gives an organisation's finished runs, newest first; those that wait only when asked for by status.
func (s *Store) ListRuns(ctx context.Context, orgID int64, f RunFilter) (list []*runs.Run, err error) {
	if f.Status == runs.Pending && (f.Verdict != "" || f.Trigger != "" && f.Trigger != runs.ByEvent) {
		return nil, nil
	}
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		if f.Status == runs.Pending {
			list, err = many(ctx, tx, readPending, listPending, orgID, f.HookID, f.EventID, f.AggregateType, f.AggregateID, f.From, f.To, f.BeforeAt, f.BeforeID, f.Limit)
			return err
		}
		list, err = many(ctx, tx, readRun, listRuns, orgID, f.HookID, f.EventID, f.AggregateType, f.AggregateID, f.Status, f.Verdict, f.Trigger, f.From, f.To,
			f.BeforeAt, f.BeforeID, f.Limit)
		return err
	})
	return list, err
}

// GetRun gives one run, finished or waiting. Errors: reason RUN_NOT_FOUND.
func (s *Store) GetRun(ctx context.Context, orgID, id int64) (r *runs.Run, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		// In this order it cannot slip through between both.
		if r, err = one(ctx, tx, readPending, errNone, pendingByID, orgID, id); errors.Is(err, errNone) {
			r, err = one(ctx, tx, readRun, errNoRun, runByID, orgID, id)
		}
		return err
	})
	return r, err
}

// Spent is what a day has taken, and what it may still take at the worst; of a hook, or hookID 0 of the organisation.
func (s *Store) Spent(ctx context.Context, orgID, hookID int64, day time.Time) (spent, held prompting.Amount, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `SELECT spent_runs, spent_tokens, spent_cost, held_runs, held_tokens, held_cost FROM sametick.prompt_budgets
			WHERE org_id = $1 AND hook_id = $2 AND day = $3`, orgID, hookID, day).
			Scan(&spent.Runs, &spent.Tokens, &spent.Cost, &held.Runs, &held.Tokens, &held.Cost)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return spent, held, err
}
