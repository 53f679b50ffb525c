package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

const (
	// What was to be retried and does not wait any more was skipped or cancelled meanwhile: that was its end.
	attemptsSQL = `
INSERT INTO sametick.webhook_attempts (org_id, endpoint_id, delivery_id, event_id, position, event_type, trigger, attempt, outcome, cause, error,
  status, latency_us, request_headers, response_headers, response_body, truncated, next_at, scheduled_at, created_at)
SELECT r.org, r.endpoint, r.delivery, r.event, r.position, r.type, r.trigger, r.attempt,
  CASE WHEN r.outcome = 'retrying' AND NOT EXISTS (SELECT FROM sametick.webhook_queue q WHERE q.id = r.delivery) THEN 'cancelled' ELSE r.outcome END,
  r.cause, r.error, nullif(r.status, 0), r.latency, nullif(r.sent, '')::jsonb, nullif(r.got, '')::jsonb, r.body, r.truncated, r.next, r.scheduled, r.began
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::smallint[], $9::text[], $10::text[],
    $11::text[], $12::smallint[], $13::bigint[], $14::text[], $15::text[], $16::bytea[], $17::boolean[], $18::timestamptz[], $19::timestamptz[], $20::timestamptz[])
    AS r(org, endpoint, delivery, event, position, type, trigger, attempt, outcome, cause, error, status, latency, sent, got, body, truncated, next, scheduled, began)`
	// To look for what is there costs every row some 2 in 5 more (measured), so only what may be there is looked for.
	attemptsAgainSQL = attemptsSQL + ` ON CONFLICT DO NOTHING`

	doneSQL = `DELETE FROM sametick.webhook_queue WHERE id = ANY($1)`
	// The attempts made are the fence: a replica that was paused and has lost the shard cannot take back what the holder has
	// done since.
	putOffSQL = `
UPDATE sametick.webhook_queue q SET attempts = q.attempts + 1, due_at = r.due, cause = r.cause
  FROM unnest($1::bigint[], $2::smallint[], $3::timestamptz[], $4::text[]) AS r(id, attempts, due, cause)
 WHERE q.id = r.id AND q.attempts = r.attempts RETURNING q.id`
	failingSQL = `UPDATE sametick.webhook_endpoints SET failing_since = $3 WHERE org_id = $1 AND id = $2 AND enabled AND failing_since IS DISTINCT FROM $3`
	disableSQL = `
UPDATE sametick.webhook_endpoints SET enabled = false, disabled_reason = $3, disabled_at = date_trunc('milliseconds', now()), failing_since = $4,
  version = version + 1, updated_at = date_trunc('milliseconds', now())
 WHERE org_id = $1 AND id = $2 AND enabled AND archived_at IS NULL RETURNING coalesce(nullif(description, ''), url)`

	cancelSQL = `
WITH closed AS (SELECT CASE WHEN archived_at IS NOT NULL THEN 'archived' ELSE 'disabled' END AS cause FROM sametick.webhook_endpoints
    WHERE org_id = $1 AND id = $2 AND (NOT enabled OR archived_at IS NOT NULL)),
  gone AS (DELETE FROM sametick.webhook_queue WHERE id IN (SELECT id FROM sametick.webhook_queue, closed WHERE shard = $3 AND endpoint_id = $2
    AND id <> ALL($4) ORDER BY due_at, id LIMIT $5) RETURNING *)
INSERT INTO sametick.webhook_attempts (org_id, endpoint_id, delivery_id, event_id, position, event_type, trigger, attempt, outcome, cause, scheduled_at, created_at)
SELECT g.org_id, g.endpoint_id, g.id, g.event_id, g.position, g.event_type, g.trigger, 0, 'cancelled', c.cause, g.created_at, now()
  FROM gone g, closed c ORDER BY g.id`
)

// Save implements delivery.History. Endpoints that are to be disabled come first, in a transaction with their event each;
// the rest is one round trip, which Postgres runs as one transaction (PostgreSQL documentation, 55.2.4, Pipelining). A
// batch that is saved again, because an answer was lost, is there once; what it put off is then refused.
func (s *Worker) Save(ctx context.Context, batch *delivery.Batch) (refused []int64, err error) {
	b := &pgx.Batch{}
	b.Queue(everyOrg)
	if batch.Again {
		b.Queue(attemptsAgainSQL, attemptArgs(batch.Outcomes)...)
	} else {
		b.Queue(attemptsSQL, attemptArgs(batch.Outcomes)...)
	}
	queueEnds(b, batch.Outcomes, &refused)
	for i := range batch.Changes {
		c := &batch.Changes[i]
		if c.Disable == "" {
			b.Queue(failingSQL, c.OrgID, c.EndpointID, instant(c.FailingSince))
		} else if err := s.disable(ctx, c); err != nil {
			return nil, err
		}
	}
	return refused, pg.Translate(s.pool.SendBatch(ctx, b).Close())
}

// queueEnds takes what has ended from the queue and puts off the rest; refused gets what could not be.
func queueEnds(b *pgx.Batch, list []delivery.Outcome, refused *[]int64) {
	var done, again []int64
	var made []int16
	var due []time.Time
	var causes []string
	for i := range list {
		o := &list[i]
		if o.Kind != delivery.Retrying {
			done = append(done, o.Delivery.ID)
			continue
		}
		again, made = append(again, o.Delivery.ID), append(made, int16(o.Delivery.Attempts))
		due, causes = append(due, o.Next), append(causes, o.Result.Cause)
	}
	if len(done) > 0 {
		b.Queue(doneSQL, done)
	}
	if len(again) == 0 {
		return
	}
	b.Queue(putOffSQL, again, made, due, causes).Query(func(rows pgx.Rows) error {
		put, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		*refused = slices.DeleteFunc(again, func(id int64) bool { return slices.Contains(put, id) })
		return err
	})
}

// disable disables an endpoint that is not disabled yet, with its event.
func (s *Worker) disable(ctx context.Context, c *delivery.Change) error {
	return s.worker(ctx, func(tx pgx.Tx) error {
		var name string
		err := tx.QueryRow(ctx, disableSQL, c.OrgID, c.EndpointID, c.Disable, instant(c.FailingSince)).Scan(&name)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = outbox.Append(ctx, tx, outbox.Context{}, outbox.Event{
			OrgID: c.OrgID, AggregateType: delivery.EndpointType, AggregateID: c.EndpointID, Action: delivery.ActionDisabled, RecordName: name,
			Changes: fmt.Appendf(nil, `{"enabled":{"before":true,"after":false},"disabled_reason":{"before":"","after":%q}}`, c.Disable),
		})
		return err
	})
}

// Cancel implements delivery.History.
func (s *Worker) Cancel(ctx context.Context, w delivery.Want) (n int, err error) {
	if w.Except == nil {
		w.Except = []int64{}
	}
	err = s.worker(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, cancelSQL, w.OrgID, w.EndpointID, w.Shard, w.Except, w.Limit)
		n = int(tag.RowsAffected())
		return err
	})
	return n, err
}

// columns are the arguments of attemptsSQL.
type columns struct {
	orgs, endpoints, deliveries, events, positions, latencies []int64
	types, triggers, outcomes, causes, errors, sent, got      []string
	attempts, statuses                                        []int16
	bodies                                                    [][]byte
	truncated                                                 []bool
	next                                                      []*time.Time
	scheduled, began                                          []time.Time
}

func attemptArgs(list []delivery.Outcome) []any {
	n := len(list)
	bigints, texts, smallints, times := make([]int64, 6*n), make([]string, 7*n), make([]int16, 2*n), make([]time.Time, 2*n)
	c := columns{
		orgs: bigints[:n], endpoints: bigints[n : 2*n], deliveries: bigints[2*n : 3*n], events: bigints[3*n : 4*n], positions: bigints[4*n : 5*n], latencies: bigints[5*n:],
		types: texts[:n], triggers: texts[n : 2*n], outcomes: texts[2*n : 3*n], causes: texts[3*n : 4*n], errors: texts[4*n : 5*n], sent: texts[5*n : 6*n], got: texts[6*n:],
		attempts: smallints[:n], statuses: smallints[n:], scheduled: times[:n], began: times[n:],
		bodies: make([][]byte, n), truncated: make([]bool, n), next: make([]*time.Time, n),
	}
	for i := range list {
		o := &list[i]
		d, r := &o.Delivery, &o.Result
		c.orgs[i], c.endpoints[i], c.deliveries[i], c.events[i], c.positions[i] = d.OrgID, d.EndpointID, d.ID, d.EventID, d.Position
		c.types[i], c.triggers[i], c.outcomes[i], c.causes[i], c.errors[i] = d.EventType, d.Trigger, o.Kind, r.Cause, r.Error
		c.attempts[i], c.statuses[i], c.latencies[i] = int16(o.Attempt), int16(r.Status), r.Latency.Microseconds()
		c.sent[i], c.got[i], c.bodies[i], c.truncated[i] = r.RequestHeaders, r.ResponseHeaders, r.Body, r.Truncated
		c.next[i], c.scheduled[i], c.began[i] = instant(o.Next), d.ScheduledAt, r.Began
	}
	return []any{c.orgs, c.endpoints, c.deliveries, c.events, c.positions, c.types, c.triggers, c.attempts, c.outcomes, c.causes, c.errors,
		c.statuses, c.latencies, c.sent, c.got, c.bodies, c.truncated, c.next, c.scheduled, c.began}
}

// instant keeps the zero time NULL.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
