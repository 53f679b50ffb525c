package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

const (
	// waiting goes from hook to hook along the index, however much waits for each.
	waiting = `
WITH RECURSIVE w AS (
  (SELECT q.hook_id, q.org_id, q.due_at FROM sametick.prompt_queue q WHERE q.shard = $1 ORDER BY q.hook_id, q.due_at LIMIT 1)
  UNION ALL
  SELECT n.* FROM w, LATERAL (SELECT q.hook_id, q.org_id, q.due_at FROM sametick.prompt_queue q
    WHERE q.shard = $1 AND q.hook_id > w.hook_id ORDER BY q.hook_id, q.due_at LIMIT 1) n)
SELECT org_id, hook_id, due_at FROM w`
	// firstItems has one more than may be worked at: it says when there is more to do.
	firstItems = `
SELECT due_at <= clock_timestamp(), id, org_id, shard::int, hook_id, event_id, event, event_type, aggregate_type, aggregate_id, attempts::int, unknown::int, calling, due_at, created_at, cause, error, trace_context
  FROM sametick.prompt_queue WHERE shard = $1 AND hook_id = $2 AND id <> ALL($3) ORDER BY due_at, id LIMIT $4`

	// claimable locks the rows that are still as they were read; a row that another worker has at hand is skipped.
	claimable = `
SELECT q.id FROM sametick.prompt_queue q JOIN unnest($1::bigint[], $2::smallint[]) u(id, attempts) ON u.id = q.id AND u.attempts = q.attempts
 WHERE q.due_at <= clock_timestamp() FOR UPDATE OF q SKIP LOCKED`
	claim = `
UPDATE sametick.prompt_queue q SET attempts = q.attempts + 1, unknown = q.unknown + q.calling::int, calling = true, due_at = u.until
  FROM unnest($1::bigint[], $2::timestamptz[]) u(id, until) WHERE q.id = u.id`
	putOff = `
UPDATE sametick.prompt_queue q SET due_at = u.due, calling = false, unknown = q.unknown + u.unknown, cause = u.cause, error = u.error
  FROM unnest($1::bigint[], $2::smallint[], $3::timestamptz[], $4::smallint[], $5::text[], $6::text[]) u(id, attempt, due, unknown, cause, error)
 WHERE q.id = u.id AND q.attempts = u.attempt RETURNING q.id`
	endItems = `
DELETE FROM sametick.prompt_queue q USING unnest($1::bigint[], $2::smallint[]) u(id, attempt) WHERE q.id = u.id AND q.attempts = u.attempt RETURNING q.id`
)

// inOrder keeps the planner to the index of due_at: a queue grows and empties faster than its statistics follow, and who
// thinks that little waits fetches and sorts all of it for each window.
const inOrder = `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)`

// Waiting implements runs.Queue.
func (s *Store) Waiting(ctx context.Context, shard int) (list []runs.Waiting, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, waiting, shard)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[runs.Waiting])
		return err
	})
	return list, err
}

// Load implements runs.Queue.
func (s *Store) Load(ctx context.Context, w runs.Want) (got runs.Window, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) (err error) {
		got = runs.Window{}
		except := w.Except
		if except == nil {
			except = []int64{}
		}
		b := &pgx.Batch{}
		var found []foundItem
		var hook []*hooks.Hook
		b.Queue(inOrder)
		queueMany(b, &found, readItem, firstItems, w.Shard, w.HookID, except, w.Limit+1)
		queueMany(b, &hook, readHook, hookByID, w.OrgID, w.HookID)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		for n, f := range found {
			if !f.due || n == w.Limit {
				got.Next = f.Due
				break
			}
			got.Items = append(got.Items, f.Item)
		}
		if len(got.Items) > 0 && len(hook) > 0 {
			got.Setup, err = setupOf(ctx, tx, hook[0])
		}
		return err
	})
	return got, err
}

type foundItem struct {
	*runs.Item
	due bool
}

func readItem(row pgx.CollectableRow) (foundItem, error) {
	i := foundItem{Item: &runs.Item{}}
	err := row.Scan(&i.due, &i.ID, &i.OrgID, &i.Shard, &i.HookID, &i.EventID, &i.Event, &i.EventType, &i.AggregateType, &i.AggregateID, &i.Attempts,
		&i.Unknown, &i.Calling, &i.Due, &i.CreatedAt, &i.Cause, &i.Error, &i.Traceparent)
	return i, err
}

// Begin implements runs.Queue.
func (s *Store) Begin(ctx context.Context, list []runs.Beginning) (answers []runs.Answer, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) error {
		answers = make([]runs.Answer, len(list))
		ids, attempts := make([]int64, len(list)), make([]int16, len(list))
		for k, b := range list {
			ids[k], attempts[k] = b.Item.ID, int16(b.Item.Attempts) //nolint:gosec // at most runs.MaxAttempts
		}
		free, err := collectIDs(tx.Query(ctx, claimable, ids, attempts))
		if err != nil {
			return err
		}
		var wanted []Reservation
		var which []int
		for k, b := range list {
			if free[b.Item.ID] {
				which = append(which, k)
				wanted = append(wanted, Reservation{prompting.Attempt{Run: b.Item.ID, No: b.Item.Attempts + 1}, b.Item.OrgID, b.Item.HookID, b.Worst, b.Limits, b.Until})
			}
		}
		day := today()
		refused, err := s.reserve(ctx, tx, day, wanted)
		if err != nil {
			return err
		}
		ids = ids[:0]
		var until []time.Time
		for n, k := range which {
			answers[k] = runs.Answer{Begun: refused[n] == "", Refused: refused[n]}
			if answers[k].Begun {
				ids, until = append(ids, wanted[n].Run), append(until, wanted[n].Until)
			}
		}
		if len(ids) == 0 {
			return nil
		}
		b := &pgx.Batch{}
		book(b, day, wanted, refused)
		b.Queue(claim, ids, until)
		return tx.SendBatch(ctx, b).Close()
	})
	return answers, err
}

func collectIDs(rows pgx.Rows, err error) (map[int64]bool, error) {
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	out := make(map[int64]bool, len(list))
	for _, id := range list {
		out[id] = true
	}
	return out, err
}

// Finish implements runs.Queue. What is told again, because its commit was in doubt, finds its row gone.
func (s *Store) Finish(ctx context.Context, list []runs.Outcome) (kept []bool, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) error {
		changed, err := moveItems(ctx, tx, list)
		if err != nil {
			return err
		}
		var settled []Settlement
		var final []*runs.Run
		kept = make([]bool, len(list))
		for k := range list {
			o := &list[k]
			kept[k] = changed[o.Run.ID]
			if o.Took != nil {
				settled = append(settled, Settlement{prompting.Attempt{Run: o.Run.ID, No: o.Attempt}, *o.Took})
			}
			if kept[k] && o.RetryAt.IsZero() {
				final = append(final, o.Run)
			}
		}
		b := &pgx.Batch{}
		queueRuns(b, final)
		if err := recordRuns(b, final); err != nil {
			return err
		}
		queueSettle(b, settled) // last: its rows are those that every attempt of the organisation wants
		return tx.SendBatch(ctx, b).Close()
	})
	return kept, err
}

// moveItems ends rows and puts others off, and gives the ids of those that were still the attempt's.
func moveItems(ctx context.Context, tx pgx.Tx, list []runs.Outcome) (map[int64]bool, error) {
	var ends, offs, ats = []int64{}, []int64{}, []int16{}
	var offAts, unknown []int16
	var due []time.Time
	var causes, texts []string
	for k := range list {
		o := &list[k]
		at := int16(o.Attempt) //nolint:gosec // at most runs.MaxAttempts
		if o.RetryAt.IsZero() {
			ends, ats = append(ends, o.Run.ID), append(ats, at)
			continue
		}
		n := int16(0)
		if o.Unknown {
			n = 1
		}
		offs, offAts, due, unknown = append(offs, o.Run.ID), append(offAts, at), append(due, o.RetryAt), append(unknown, n)
		causes, texts = append(causes, o.Run.Cause), append(texts, o.Run.Error)
	}
	changed, err := collectIDs(tx.Query(ctx, endItems, ends, ats))
	if err != nil || len(offs) == 0 {
		return changed, err
	}
	put, err := collectIDs(tx.Query(ctx, putOff, offs, offAts, due, unknown, causes, texts))
	for id := range put {
		changed[id] = true
	}
	return changed, err
}
