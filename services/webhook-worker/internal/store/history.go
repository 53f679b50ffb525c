package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
)

// stretch is how many rows of an index a page of a list may look at: what few rows match takes several pages.
const stretch = 10_000

// most bounds what statistics count, and newestLatencies those whose latency counts.
const (
	most            = 100_000
	newestLatencies = 10_000
)

const (
	waitingColumns = `id, endpoint_id, event_id, event_type, trigger, 'pending', attempts::int, due_at, cause, created_at, NULL::timestamptz`
	// An end without a request (attempt 0) may follow attempts. Replicas' clocks differ by less than the hour.
	endedColumns = `delivery_id, endpoint_id, event_id, event_type, trigger, outcome, CASE WHEN attempt > 0 THEN attempt ELSE (SELECT max(a.attempt)
		FROM sametick.webhook_attempts a WHERE a.delivery_id = looked.delivery_id AND a.created_at > looked.scheduled_at - interval '1 hour') END::int,
		NULL::timestamptz, cause, scheduled_at, created_at + latency_us * interval '1 microsecond'`
	attemptColumns = `id, delivery_id, endpoint_id, event_id, event_type, attempt::int, outcome, cause, error, status::int, latency_us,
		request_headers::text, response_headers::text, response_body, truncated, created_at, next_at`

	// Of an endpoint, whose rows in the queue are one stretch of an index, or of an event that has been attempted.
	waitingOfEndpoint = `SELECT ` + waitingColumns + ` FROM sametick.webhook_queue WHERE org_id = $1 AND shard = sametick.shard_of($1) AND endpoint_id = $2
		AND ($3::bigint IS NULL OR event_id = $3) AND ($4 = '' OR event_type = $4) AND ($5::timestamptz IS NULL OR created_at >= $5)
		AND ($6::timestamptz IS NULL OR created_at < $6) AND ($7 = 0 OR id < $7) ORDER BY id DESC LIMIT $8`
	waitingOfEvent = `SELECT ` + waitingColumns + ` FROM sametick.webhook_queue WHERE org_id = $1 AND ($2::bigint IS NULL OR endpoint_id = $2)
		AND id IN (SELECT delivery_id FROM sametick.webhook_attempts WHERE org_id = $1 AND event_id = $3 ORDER BY id DESC LIMIT 10000)
		AND ($4 = '' OR event_type = $4) AND ($5::timestamptz IS NULL OR created_at >= $5)
		AND ($6::timestamptz IS NULL OR created_at < $6) AND ($7 = 0 OR id < $7) ORDER BY id DESC LIMIT $8`

	waitingByID = `SELECT ` + waitingColumns + ` FROM sametick.webhook_queue WHERE org_id = $1 AND id = $2`
	// The last attempt; of one that was given up while it was under way, the end.
	endedByID   = `SELECT ` + endedColumns + ` FROM sametick.webhook_attempts looked WHERE org_id = $1 AND delivery_id = $2 ORDER BY outcome = 'retrying', id DESC LIMIT 1`
	attemptByID = `SELECT ` + attemptColumns + ` FROM sametick.webhook_attempts WHERE org_id = $1 AND id = $2`

	newestAttempt = `SELECT coalesce(max(id), 0) FROM sametick.webhook_attempts WHERE org_id = $1 AND endpoint_id = $2`
	eventByID     = `SELECT id, org_id, aggregate_type, aggregate_id, event_type, payload::text, occurred_at FROM sametick.events WHERE org_id = $1 AND id = $2`

	countAttempts = `SELECT count(*), count(*) FILTER (WHERE outcome = 'delivered'), count(*) FILTER (WHERE attempt > 0 AND outcome <> 'delivered'),
		percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY latency_us) FILTER (WHERE n <= $5)
		FROM (SELECT outcome, attempt, latency_us, row_number() OVER () AS n FROM
			(SELECT outcome, attempt, latency_us FROM sametick.webhook_attempts
			  WHERE org_id = $1 AND endpoint_id = $2 AND created_at >= $3 AND attempt > 0 ORDER BY id DESC LIMIT $4) newest) counted`
	countWaiting = `SELECT count(*), min(created_at) FROM (SELECT created_at FROM sametick.webhook_queue
		WHERE org_id = $1 AND shard = sametick.shard_of($1) AND endpoint_id = $2 ORDER BY due_at LIMIT $3) w`
)

// Deliveries implements endpoints.History.
func (s *Store) Deliveries(ctx context.Context, orgID int64, f endpoints.Filter) (page []endpoints.Delivery, next *endpoints.Cursor, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		page, next = nil, nil
		after := f.After
		if !after.Finished && (f.Status == "" || f.Status == endpoints.Pending) {
			if page, err = waiting(ctx, tx, orgID, f, f.Limit+1); err != nil {
				return err
			}
			if len(page) > f.Limit {
				page = page[:f.Limit]
				next = &endpoints.Cursor{ID: page[f.Limit-1].ID}
				return nil
			}
		}
		if f.Status == endpoints.Pending {
			return nil
		}
		if !after.Finished {
			after = endpoints.Cursor{Finished: true}
		}
		if len(page) == f.Limit {
			next = &after
			return nil
		}
		left := f
		left.After, left.Limit = after, f.Limit-len(page)
		ended, more, err := ended(ctx, tx, orgID, left)
		page, next = append(page, ended...), more
		return err
	})
	return page, next, err
}

func waiting(ctx context.Context, tx pgx.Tx, orgID int64, f endpoints.Filter, limit int) ([]endpoints.Delivery, error) {
	sql := waitingOfEndpoint
	if f.EndpointID == nil {
		sql = waitingOfEvent
	}
	return query(ctx, tx, readDelivery, sql, orgID, f.EndpointID, f.EventID, f.EventType, f.From, f.To, f.After.ID, limit)
}

// ended gives deliveries by their last attempts.
func ended(ctx context.Context, tx pgx.Tx, orgID int64, f endpoints.Filter) ([]endpoints.Delivery, *endpoints.Cursor, error) {
	q := newAttemptQuery(orgID, f, "scheduled_at")
	q.rest = append(q.rest, `outcome <> 'retrying'`)
	return attemptPage(ctx, tx, q, endedColumns, f.Limit, func(row pgx.CollectableRow) (d endpoints.Delivery, id int64, err error) {
		err = row.Scan(append([]any{&id}, deliveryFields(&d)...)...)
		return d, id, err
	})
}

// Attempts implements endpoints.History.
func (s *Store) Attempts(ctx context.Context, orgID int64, f endpoints.Filter) (page []endpoints.Attempt, next *endpoints.Cursor, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		page, next, err = attemptPage(ctx, tx, newAttemptQuery(orgID, f, "created_at"), attemptColumns, f.Limit,
			func(row pgx.CollectableRow) (a endpoints.Attempt, id int64, err error) {
				a, err = readAttempt(row, nil)
				return a, a.ID, err
			})
		return err
	})
	return page, next, err
}

// Delivery implements endpoints.History.
func (s *Store) Delivery(ctx context.Context, orgID, id int64) (d endpoints.Delivery, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		d, err = oneDelivery(ctx, tx, orgID, id)
		return err
	})
	return d, err
}

func oneDelivery(ctx context.Context, tx pgx.Tx, orgID, id int64) (d endpoints.Delivery, err error) {
	for _, sql := range []string{waitingByID, endedByID} {
		if err = tx.QueryRow(ctx, sql, orgID, id).Scan(deliveryFields(&d)...); !errors.Is(err, pgx.ErrNoRows) {
			return d, err
		}
	}
	return d, endpoints.ErrNotFound("delivery", id)
}

// Attempt implements endpoints.History.
func (s *Store) Attempt(ctx context.Context, orgID, id int64) (a endpoints.Attempt, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		a, err = readAttempt(tx.QueryRow(ctx, attemptByID, orgID, id))
		if errors.Is(err, pgx.ErrNoRows) {
			return endpoints.ErrNotFound("attempt", id)
		}
		return err
	})
	return a, err
}

// NewestAttempt implements endpoints.History.
func (s *Store) NewestAttempt(ctx context.Context, orgID, endpointID int64) (id int64, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error { return tx.QueryRow(ctx, newestAttempt, orgID, endpointID).Scan(&id) })
	return id, err
}

// Stats implements endpoints.History.
func (s *Store) Stats(ctx context.Context, orgID, endpointID int64, since time.Time) (st endpoints.Stats, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		var percentiles []float64
		err := tx.QueryRow(ctx, countAttempts, orgID, endpointID, since, most, newestLatencies).Scan(&st.Attempts, &st.Delivered, &st.Failed, &percentiles)
		if err != nil {
			return err
		}
		for i, to := range []**float64{&st.P50, &st.P95, &st.P99} {
			if i < len(percentiles) {
				ms := percentiles[i] / 1000
				*to = &ms
			}
		}
		return tx.QueryRow(ctx, countWaiting, orgID, endpointID, most).Scan(&st.Backlog, &st.Oldest)
	})
	return st, err
}

// Event implements endpoints.History.
func (s *Store) Event(ctx context.Context, orgID, id int64) (text []byte, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		var e event.Event
		var payload string
		err := tx.QueryRow(ctx, eventByID, orgID, id).Scan(&e.ID, &e.OrgID, &e.AggregateType, &e.AggregateID, &e.EventType, &payload, &e.OccurredAt)
		if errors.Is(err, pgx.ErrNoRows) {
			return endpoints.ErrNotFound("event", id)
		}
		e.Payload = []byte(payload)
		text = e.AppendJSON(nil)
		return err
	})
	return text, err
}

const (
	hurry = `UPDATE sametick.webhook_queue SET due_at = least(due_at, now()) WHERE org_id = $1 AND id = $2`
	// A delivery that has ended is sent again as another one.
	again = `INSERT INTO sametick.webhook_queue (id, org_id, shard, endpoint_id, event_id, position, event_type, trigger, due_at, created_at)
		SELECT nextval('sametick.webhook_delivery_ids'), org_id, sametick.shard_of(org_id), endpoint_id, event_id, position, event_type, 'redeliver', now(), now()
		  FROM sametick.webhook_attempts WHERE org_id = $1 AND delivery_id = $2 ORDER BY id DESC LIMIT 1 RETURNING id`
	giveUp = `WITH gone AS (DELETE FROM sametick.webhook_queue WHERE org_id = $1 AND id = $2 RETURNING *)
		INSERT INTO sametick.webhook_attempts (org_id, endpoint_id, delivery_id, event_id, position, event_type, trigger, attempt, outcome, cause, error, scheduled_at, created_at)
		SELECT org_id, endpoint_id, id, event_id, position, event_type, trigger, 0, 'cancelled', $3, 'given up by hand', created_at, now() FROM gone`
)

// Redeliver implements endpoints.History.
func (s *Store) Redeliver(ctx context.Context, call endpoints.Call, id int64) (d endpoints.Delivery, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		e, err := endpointOf(ctx, tx, call.OrgID, id)
		if err != nil {
			return err
		}
		if err := endpoints.CheckReady(&e); err != nil {
			return err
		}
		due := id
		tag, err := tx.Exec(ctx, hurry, call.OrgID, id)
		if err == nil && tag.RowsAffected() == 0 {
			err = tx.QueryRow(ctx, again, call.OrgID, id).Scan(&due)
		}
		if err != nil {
			return err
		}
		if _, err := record(ctx, tx, call, &e, nil, extraID("delivery_id", due), delivery.ActionRedeliveryRequested); err != nil {
			return err
		}
		d, err = oneDelivery(ctx, tx, call.OrgID, due)
		return err
	})
	return d, err
}

// endpointOf locks the endpoint of a delivery.
func endpointOf(ctx context.Context, tx pgx.Tx, orgID, id int64) (endpoints.Endpoint, error) {
	d, err := oneDelivery(ctx, tx, orgID, id)
	if err != nil {
		return endpoints.Endpoint{}, err
	}
	c, err := lock(ctx, tx, orgID, d.EndpointID)
	return c.Endpoint, err
}

// Skip implements endpoints.History. An attempt that is under way ends as it does, and is kept beside the end.
func (s *Store) Skip(ctx context.Context, call endpoints.Call, id int64) (d endpoints.Delivery, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		e, err := endpointOf(ctx, tx, call.OrgID, id)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, giveUp, call.OrgID, id, delivery.CauseSkipped)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return errs.New(errs.FailedPrecondition, "DELIVERY_ENDED", "the delivery does not wait any longer")
		}
		if _, err := record(ctx, tx, call, &e, nil, extraID("delivery_id", id), delivery.ActionSkipRequested); err != nil {
			return err
		}
		d, err = oneDelivery(ctx, tx, call.OrgID, id)
		return err
	})
	return d, err
}

func extraID(key string, id int64) []byte { return []byte(`{"` + key + `":` + idText(id) + `}`) }
