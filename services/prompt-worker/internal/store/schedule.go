package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

const (
	asyncHooks = hookColumns + ` FROM sametick.prompt_hooks h WHERE h.org_id = ANY($1) AND h.mode = 'async' AND h.archived_at IS NULL ORDER BY h.id`
	beginHook  = `UPDATE sametick.prompt_hooks SET from_position = $3 WHERE org_id = $1 AND id = $2 AND from_position IS NULL`
	enqueue    = `
INSERT INTO sametick.prompt_queue (id, org_id, shard, hook_id, event_id, event, event_type, aggregate_type, aggregate_id, due_at, cause, error, trace_context, created_at)
SELECT nextval('sametick.prompt_run_ids'), u.org, $1, u.hook, u.event_id, u.event, u.event_type, u.type, u.id, now(), u.cause, u.error, u.trace, now()
  FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::text[], $7::text[], $8::bigint[], $9::text[], $10::text[], $11::text[])
    WITH ORDINALITY AS u(org, hook, event_id, event, event_type, type, id, cause, error, trace, n)
 ORDER BY u.n`
)

// Scheduling is what a transaction of the scheduler may do; it sees every organisation.
type Scheduling struct{ tx pgx.Tx }

// Schedule opens a consumer's transaction to the scheduler.
func (s *Store) Schedule(ctx context.Context, tx pgx.Tx) (*Scheduling, error) {
	_, err := tx.Exec(ctx, everyOrg)
	return &Scheduling{tx}, err
}

// AsyncHooks gives the async hooks of organisations, but for archived ones.
func (s *Scheduling) AsyncHooks(ctx context.Context, orgs []int64) (map[int64][]*hooks.Hook, error) {
	rows, err := s.tx.Query(ctx, asyncHooks, orgs)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, readHook)
	out := map[int64][]*hooks.Hook{}
	for _, h := range list {
		out[h.OrgID] = append(out[h.OrgID], h)
	}
	return out, err
}

// BeginHook notes the position of a hook's post_create event.
func (s *Scheduling) BeginHook(ctx context.Context, orgID, id, position int64) error {
	_, err := s.tx.Exec(ctx, beginHook, orgID, id, position)
	return err
}

// Enqueue puts runs into the queue of a shard. Ids are drawn here.
func (s *Scheduling) Enqueue(ctx context.Context, shard int, list []*runs.Item) error {
	n := len(list)
	orgs, hookIDs, events, ids := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	bodies := make([][]byte, n)
	types, aggregates, causes, errors, traces := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for k, i := range list {
		orgs[k], hookIDs[k], events[k], bodies[k] = i.OrgID, i.HookID, i.EventID, i.Event
		types[k], aggregates[k], ids[k] = i.EventType, i.AggregateType, i.AggregateID
		causes[k], errors[k], traces[k] = i.Cause, i.Error, i.Traceparent
	}
	_, err := s.tx.Exec(ctx, enqueue, shard, orgs, hookIDs, events, bodies, types, aggregates, ids, causes, errors, traces)
	return err
}
