package judge

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// historySQL is one row for each pair, whoever made the deliveries.
const historySQL = `
SELECT endpoint_id, event_id, count(DISTINCT delivery), count(*) FILTER (WHERE outcome = 'delivered'), count(*) FILTER (WHERE outcome = 'failed'),
       count(*) FILTER (WHERE outcome = 'cancelled'), count(*) FILTER (WHERE outcome = 'waiting')
  FROM (SELECT endpoint_id, event_id, delivery_id AS delivery, outcome FROM sametick.webhook_attempts
        UNION ALL SELECT endpoint_id, event_id, id, 'waiting' FROM sametick.webhook_queue) d
 GROUP BY endpoint_id, event_id`

// LoadHistory reads the queue and the history of attempts and judges them.
func LoadHistory(ctx context.Context, db Querier, d *Deliveries) error {
	rows, err := db.Query(ctx, historySQL)
	if err != nil {
		return fmt.Errorf("read the history of webhooks: %w", err)
	}
	var h History
	_, err = pgx.ForEachRow(rows, []any{&h.EndpointID, &h.EventID, &h.Deliveries, &h.Delivered, &h.Failed, &h.Cancelled, &h.Waiting},
		func() error { d.Recall(h); return nil })
	if err != nil {
		return fmt.Errorf("read the history of webhooks: %w", err)
	}
	return nil
}
