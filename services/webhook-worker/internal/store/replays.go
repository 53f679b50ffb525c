package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
)

const (
	replayColumns = `id, endpoint_id, kind, status, since, after, through, scheduled, created_at, finished_at`
	insertReplay  = `INSERT INTO sametick.webhook_replays (org_id, id, shard, endpoint_id, kind, since, after, through)
		VALUES ($1, nextval('sametick.webhook_ids'), sametick.shard_of($1), $2, $3, $4, $5, $6) RETURNING ` + replayColumns
	countReplays = `SELECT count(*) FROM sametick.webhook_replays WHERE org_id = $1 AND endpoint_id = $2`
	listReplays  = `SELECT ` + replayColumns + ` FROM sametick.webhook_replays WHERE org_id = $1 AND endpoint_id = $2 ORDER BY id DESC LIMIT 100`
	replayByID   = `SELECT ` + replayColumns + ` FROM sametick.webhook_replays WHERE org_id = $1 AND id = $2 FOR UPDATE`
	cancelReplay = `UPDATE sametick.webhook_replays SET status = 'cancelled', finished_at = date_trunc('milliseconds', now())
		WHERE org_id = $1 AND id = $2 RETURNING ` + replayColumns
)

// maxRunning bounds the replays of one endpoint that run at once.
const maxRunning = 5

// StartReplay implements endpoints.History.
func (s *Store) StartReplay(ctx context.Context, call endpoints.Call, r endpoints.Replay) (made endpoints.Replay, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		c, err := lock(ctx, tx, call.OrgID, r.EndpointID)
		if err != nil {
			return err
		}
		if err := endpoints.CheckReady(&c.Endpoint); err != nil {
			return err
		}
		var running int
		if err := tx.QueryRow(ctx, countReplays+` AND status = 'running'`, call.OrgID, r.EndpointID).Scan(&running); err != nil {
			return err
		}
		if running >= maxRunning {
			return errs.New(errs.FailedPrecondition, "TOO_MANY_REPLAYS", "as many replays of the endpoint run as may: wait, or cancel one").
				WithMeta("limit", idText(maxRunning))
		}
		if made, err = readReplay(tx.QueryRow(ctx, insertReplay, call.OrgID, r.EndpointID, r.Kind, r.Since, r.After, r.Through)); err != nil {
			return err
		}
		_, err = record(ctx, tx, call, &c.Endpoint, nil, extraID("replay_id", made.ID), delivery.ActionReplayRequested)
		return err
	})
	return made, err
}

func readReplay(row pgx.Row) (r endpoints.Replay, err error) {
	err = row.Scan(&r.ID, &r.EndpointID, &r.Kind, &r.Status, &r.Since, &r.After, &r.Through, &r.Scheduled, &r.CreatedAt, &r.FinishedAt)
	return r, err
}

// Replays implements endpoints.History.
func (s *Store) Replays(ctx context.Context, orgID, endpointID int64) (list []endpoints.Replay, total int64, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, countReplays, orgID, endpointID).Scan(&total); err != nil {
			return err
		}
		list, err = query(ctx, tx, func(row pgx.CollectableRow) (endpoints.Replay, error) { return readReplay(row) }, listReplays, orgID, endpointID)
		return err
	})
	return list, total, err
}

// CancelReplay implements endpoints.History. What has ended stays as it is.
func (s *Store) CancelReplay(ctx context.Context, call endpoints.Call, id int64) (r endpoints.Replay, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		r, err = readReplay(tx.QueryRow(ctx, replayByID, call.OrgID, id))
		if errors.Is(err, pgx.ErrNoRows) {
			return endpoints.ErrNotFound("replay", id)
		}
		if err != nil || r.Status != endpoints.Running {
			return err
		}
		if r, err = readReplay(tx.QueryRow(ctx, cancelReplay, call.OrgID, id)); err != nil {
			return err
		}
		c, err := lock(ctx, tx, call.OrgID, r.EndpointID)
		if err != nil {
			return err
		}
		_, err = record(ctx, tx, call, &c.Endpoint, nil, extraID("replay_id", id), delivery.ActionReplayCancelled)
		return err
	})
	return r, err
}

const (
	nextReplay = `SELECT org_id, ` + replayColumns + ` FROM sametick.webhook_replays WHERE shard = $1 AND status = 'running' ORDER BY id LIMIT 1 FOR UPDATE`
	moveReplay = `UPDATE sametick.webhook_replays SET after = $3, scheduled = scheduled + $4, status = $5,
		finished_at = CASE WHEN $5 <> 'running' THEN date_trunc('milliseconds', now()) END WHERE org_id = $1 AND id = $2`
	// The next failures that are still failures: nothing later has delivered the event to the endpoint, or waits to.
	// An event that failed several times is found by the last of them.
	failures = `WITH looked AS MATERIALIZED (SELECT id, delivery_id, event_id, position, event_type, outcome, cause FROM sametick.webhook_attempts
			WHERE org_id = $1 AND endpoint_id = $2 AND id > $3 AND id <= $4 AND ($5::timestamptz IS NULL OR created_at >= $5) ORDER BY id LIMIT $6),
		failed AS (SELECT DISTINCT ON (event_id) event_id, position, event_type FROM looked f
			WHERE (f.outcome = 'failed' OR f.outcome = 'cancelled' AND f.cause = 'disabled')
			AND NOT EXISTS (SELECT FROM sametick.webhook_attempts l WHERE l.org_id = $1 AND l.event_id = f.event_id AND l.endpoint_id = $2 AND l.id > f.id)
			AND NOT EXISTS (SELECT FROM sametick.webhook_queue w WHERE w.org_id = $1 AND w.shard = $7 AND w.endpoint_id = $2 AND w.event_id = f.event_id)
			ORDER BY event_id),
		queued AS (INSERT INTO sametick.webhook_queue (id, org_id, shard, endpoint_id, event_id, position, event_type, trigger, due_at, created_at)
			SELECT nextval('sametick.webhook_delivery_ids'), $1, $7, $2, event_id, position, event_type, 'recover', now(), now()
			  FROM (SELECT * FROM failed ORDER BY position) f RETURNING id)
		SELECT (SELECT count(*) FROM queued), (SELECT max(id) FROM looked)`
	queueReplayed = `INSERT INTO sametick.webhook_queue (id, org_id, shard, endpoint_id, event_id, position, event_type, trigger, trace_context, due_at, created_at)
		SELECT nextval('sametick.webhook_delivery_ids'), $1, $2, $3, e.event_id, e.position, e.event_type, 'replay', e.trace, now(), now()
		  FROM unnest($4::bigint[], $5::bigint[], $6::text[], $7::text[]) WITH ORDINALITY AS e(event_id, position, event_type, trace, n) ORDER BY e.n`
)

// replayBatch is how many attempts, or events of an organisation, a step looks at.
const replayBatch = 500

// Replayed is one event that a replay schedules.
type Replayed struct {
	EventID, Position      int64
	EventType, Traceparent string
}

// Replayer gives the events that a replay schedules: those of an organisation after a position which match the endpoint
// and did not happen before since, where that is set. through is the position that it has looked at; the end of what
// there is gives through = after.
type Replayer func(ctx context.Context, orgID, endpointID, after int64, since *time.Time, limit int) (list []Replayed, through int64, err error)

// StepReplay does the next step of the oldest replay of a shard in the worker's transaction, which sees every
// organisation: it queues up to replayBatch deliveries, due now, and moves the replay on. The results say whose they
// are; 0 when no replay runs. Call it again until then; what one step has queued should be sent first, or memory of
// what waits grows.
func (s *Store) StepReplay(ctx context.Context, tx pgx.Tx, shard int, events Replayer) (org, endpointID int64, err error) {
	var r endpoints.Replay
	err = tx.QueryRow(ctx, nextReplay, shard).Scan(&org, &r.ID, &r.EndpointID, &r.Kind, &r.Status, &r.Since, &r.After, &r.Through, &r.Scheduled, &r.CreatedAt, &r.FinishedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	var ready bool
	err = tx.QueryRow(ctx, `SELECT enabled AND archived_at IS NULL FROM sametick.webhook_endpoints WHERE org_id = $1 AND id = $2`, org, r.EndpointID).Scan(&ready)
	if err != nil {
		return 0, 0, err
	}
	var n int64
	through, status := r.After, endpoints.Cancelled
	if ready {
		step := s.stepReplay
		if r.Kind == endpoints.RecoverKind {
			step = stepRecover
		}
		if n, through, err = step(ctx, tx, org, shard, &r, events); err != nil {
			return 0, 0, err
		}
		if status = endpoints.Running; through >= r.Through || through == r.After {
			status = endpoints.Done
		}
	}
	_, err = tx.Exec(ctx, moveReplay, org, r.ID, through, n, status)
	return org, r.EndpointID, err
}

func stepRecover(ctx context.Context, tx pgx.Tx, org int64, shard int, r *endpoints.Replay, _ Replayer) (n, through int64, err error) {
	var last *int64
	err = tx.QueryRow(ctx, failures, org, r.EndpointID, r.After, r.Through, r.Since, replayBatch, shard).Scan(&n, &last)
	if last == nil {
		return n, r.Through, err
	}
	return n, *last, err
}

func (s *Store) stepReplay(ctx context.Context, tx pgx.Tx, org int64, shard int, r *endpoints.Replay, events Replayer) (n, through int64, err error) {
	list, through, err := events(ctx, org, r.EndpointID, r.After, r.Since, replayBatch)
	if err != nil {
		return 0, 0, err
	}
	var ids, positions []int64
	var types, traces []string
	for _, e := range list {
		if e.Position <= r.Through {
			ids, positions, types, traces = append(ids, e.EventID), append(positions, e.Position), append(types, e.EventType), append(traces, e.Traceparent)
		}
	}
	if len(ids) > 0 {
		if _, err := tx.Exec(ctx, queueReplayed, org, shard, r.EndpointID, ids, positions, types, traces); err != nil {
			return 0, 0, err
		}
	}
	return int64(len(ids)), through, nil
}
