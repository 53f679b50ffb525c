package store

import (
	"context"
	"encoding/json"
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
  r.cause, r.error, nullif(r.status, 0), r.latency, r.sent::jsonb, r.got::jsonb, r.body, r.truncated, r.next, r.scheduled, r.began
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
	types, triggers, outcomes, causes, errors                 []string
	attempts, statuses                                        []int16
	sent, got                                                 []*string
	bodies                                                    [][]byte
	truncated                                                 []bool
	next                                                      []*time.Time
	scheduled, began                                          []time.Time
}

func attemptArgs(list []delivery.Outcome) []any {
	var c columns
	for i := range list {
		o := &list[i]
		d, r := &o.Delivery, &o.Result
		c.orgs, c.endpoints, c.deliveries = append(c.orgs, d.OrgID), append(c.endpoints, d.EndpointID), append(c.deliveries, d.ID)
		c.events, c.positions, c.latencies = append(c.events, d.EventID), append(c.positions, d.Position), append(c.latencies, r.Latency.Microseconds())
		c.types, c.triggers, c.outcomes = append(c.types, d.EventType), append(c.triggers, d.Trigger), append(c.outcomes, o.Kind)
		c.causes, c.errors = append(c.causes, r.Cause), append(c.errors, r.Error)
		c.attempts, c.statuses = append(c.attempts, int16(o.Attempt)), append(c.statuses, int16(r.Status))
		c.sent, c.got = append(c.sent, headers(r.RequestHeaders)), append(c.got, headers(r.ResponseHeaders))
		c.bodies, c.truncated, c.next = append(c.bodies, r.Body), append(c.truncated, r.Truncated), append(c.next, instant(o.Next))
		c.scheduled, c.began = append(c.scheduled, d.ScheduledAt), append(c.began, r.Began)
	}
	return []any{c.orgs, c.endpoints, c.deliveries, c.events, c.positions, c.types, c.triggers, c.attempts, c.outcomes, c.causes, c.errors,
		c.statuses, c.latencies, c.sent, c.got, c.bodies, c.truncated, c.next, c.scheduled, c.began}
}

// headers gives JSON that jsonb takes: it refuses NUL, which no header has.
func headers(h map[string][]string) *string {
	if h == nil {
		return nil
	}
	text, err := json.Marshal(h)
	if err != nil { // strings always marshal
		panic(err)
	}
	s := string(text)
	return &s
}

// instant keeps the zero time NULL.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
