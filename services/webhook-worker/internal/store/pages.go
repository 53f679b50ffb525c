package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
)

// day is what a partition of attempts holds, in UTC.
const day = 24 * time.Hour

// attemptQuery writes statements about attempts, newest first.
type attemptQuery struct {
	// inner has the condition of one index, rest what else must match; args are of both.
	inner, rest []string
	args        []any
}

func (q *attemptQuery) arg(v any) string {
	q.args = append(q.args, v)
	return fmt.Sprintf("$%d", len(q.args))
}

// newAttemptQuery selects attempts of an event, a delivery or an endpoint. at is the column that from and to are of.
func newAttemptQuery(orgID int64, f endpoints.Filter, at string) *attemptQuery {
	q := &attemptQuery{}
	q.inner = []string{"org_id = " + q.arg(orgID)}
	for _, by := range []struct { // the rarest first
		column string
		id     *int64
	}{{"delivery_id", f.DeliveryID}, {"event_id", f.EventID}, {"endpoint_id", f.EndpointID}} {
		switch {
		case by.id == nil:
		case len(q.inner) == 1:
			q.inner = append(q.inner, by.column+" = "+q.arg(*by.id))
		default:
			q.rest = append(q.rest, by.column+" = "+q.arg(*by.id))
		}
	}
	if f.After.ID > 0 {
		q.inner = append(q.inner, "id < "+q.arg(f.After.ID))
	}
	// Whole partitions are left out of the stretch: within one, a condition would make it look at more than that.
	if f.From != nil {
		q.inner = append(q.inner, "created_at >= "+q.arg(f.From.UTC().Truncate(day))) // no earlier than scheduled_at
		q.rest = append(q.rest, at+" >= "+q.arg(*f.From))
	}
	if f.To != nil {
		q.rest = append(q.rest, at+" < "+q.arg(*f.To))
		if at == "created_at" {
			q.inner = append(q.inner, "created_at < "+q.arg(f.To.UTC().Truncate(day).Add(day)))
		}
	}
	if f.EventType != "" {
		q.rest = append(q.rest, "event_type = "+q.arg(f.EventType))
	}
	if f.Status != "" {
		q.rest = append(q.rest, "outcome = "+q.arg(f.Status))
	}
	return q
}

// page looks at one stretch for up to limit hits, and tells where the next page goes on.
func attemptPage[T any](ctx context.Context, tx pgx.Tx, q *attemptQuery, columns string, limit int, read func(pgx.CollectableRow) (T, int64, error)) (page []T, next *endpoints.Cursor, err error) {
	from := "FROM sametick.webhook_attempts WHERE " + strings.Join(q.inner, " AND ") + " ORDER BY id DESC"
	sql := fmt.Sprintf("SELECT id, %s FROM (SELECT * %s LIMIT %d) looked WHERE %s ORDER BY id DESC LIMIT %d",
		columns, from, stretch, strings.Join(append(q.rest, "true"), " AND "), limit+1)
	rows, err := tx.Query(ctx, sql, q.args...)
	if err != nil {
		return nil, nil, err
	}
	var ids []int64
	page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (T, error) {
		v, id, err := read(row)
		ids = append(ids, id)
		return v, err
	})
	if err != nil {
		return nil, nil, err
	}
	if len(page) > limit {
		return page[:limit], &endpoints.Cursor{Finished: true, ID: ids[limit-1]}, nil
	}
	var last int64
	// The arguments that only the rest has are named too, or Postgres would not know their types.
	err = tx.QueryRow(ctx, fmt.Sprintf("SELECT id FROM (SELECT * %s OFFSET %d LIMIT 1) last WHERE %s OR true", from, stretch-1,
		strings.Join(append(q.rest, "true"), " AND ")), q.args...).Scan(&last)
	if errors.Is(err, pgx.ErrNoRows) {
		return page, nil, nil
	}
	return page, &endpoints.Cursor{Finished: true, ID: last}, err
}

func readDelivery(row pgx.CollectableRow) (d endpoints.Delivery, err error) {
	err = row.Scan(deliveryFields(&d)...)
	return d, err
}

func deliveryFields(d *endpoints.Delivery) []any {
	return []any{&d.ID, &d.EndpointID, &d.EventID, &d.EventType, &d.Trigger, &d.Status, &d.Attempts, &d.DueAt, &d.Cause, &d.CreatedAt, &d.FinishedAt}
}

// readAttempt reads columns, and what precedes them into more.
func readAttempt(row pgx.Row, more ...any) (a endpoints.Attempt, err error) {
	var latency int64
	var request, response *string
	err = row.Scan(append(more, &a.ID, &a.DeliveryID, &a.EndpointID, &a.EventID, &a.EventType, &a.Attempt, &a.Outcome, &a.Cause, &a.Error, &a.Status,
		&latency, &request, &response, &a.Body, &a.Truncated, &a.CreatedAt, &a.NextAt)...)
	a.Latency, a.RequestHeaders, a.ResponseHeaders = time.Duration(latency)*time.Microsecond, jsonOf(request), jsonOf(response)
	return a, err
}

func jsonOf(text *string) json.RawMessage {
	if text == nil {
		return json.RawMessage("null")
	}
	return json.RawMessage(*text)
}
