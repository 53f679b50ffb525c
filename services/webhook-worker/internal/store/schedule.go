package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// scheduleSQL inserts in the order of the arrays, so ids are drawn and returned in it.
const scheduleSQL = `
INSERT INTO sametick.webhook_queue (id, org_id, shard, endpoint_id, event_id, position, event_type, trigger, due_at, trace_context, created_at)
SELECT nextval('sametick.webhook_delivery_ids'), r.org, $1, r.endpoint, r.event, r.position, r.type, r.trigger, $2, r.trace, $2
  FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[])
       WITH ORDINALITY AS r(org, endpoint, event, position, type, trigger, trace, n) ORDER BY r.n
RETURNING id`

// EveryOrg opens all organisations to the worker's transaction.
func (s *Worker) EveryOrg(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, everyOrg)
	return err
}

// Schedule queues deliveries of a shard, due at once, and gives them their ids, increasing.
func (s *Worker) Schedule(ctx context.Context, tx pgx.Tx, shard int, at time.Time, list []*delivery.Delivery) error {
	n := len(list)
	orgs, endpoints, events, positions := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	types, triggers, traces := make([]string, n), make([]string, n), make([]string, n)
	for i, d := range list {
		orgs[i], endpoints[i], events[i], positions[i] = d.OrgID, d.EndpointID, d.EventID, d.Position
		types[i], triggers[i], traces[i] = d.EventType, d.Trigger, d.Traceparent
	}
	rows, err := tx.Query(ctx, scheduleSQL, shard, at, orgs, endpoints, events, positions, types, triggers, traces)
	if err != nil {
		return err
	}
	i, last := 0, int64(0)
	var id int64
	_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
		if i == n || id <= last {
			return fmt.Errorf("store: ids of deliveries are not increasing: %d after %d", id, last)
		}
		list[i].ID, last = id, id
		i++
		return nil
	})
	if err == nil && i != n {
		err = fmt.Errorf("store: %d of %d deliveries were queued", i, n)
	}
	return err
}

// Record writes outcomes of deliveries that never waited, in the transaction that schedules.
func (s *Worker) Record(ctx context.Context, tx pgx.Tx, list []delivery.Outcome) error {
	if len(list) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT nextval('sametick.webhook_delivery_ids') FROM generate_series(1, $1)`, len(list))
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	for i := range list {
		list[i].Delivery.ID = ids[i]
	}
	_, err = tx.Exec(ctx, attemptsSQL, attemptArgs(list)...)
	return err
}
