package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
)

// portalType is the aggregate type of links to portals. They are events and audit entries, and no rows: a link ends by
// itself or with who made it.
const portalType = "webhook_portal"

const (
	databaseNow = `SELECT now()`
	absentIDs   = `SELECT g.id FROM unnest($2::bigint[]) WITH ORDINALITY AS g(id, n)
		WHERE NOT EXISTS (SELECT FROM sametick.webhook_endpoints e WHERE e.org_id = $1 AND e.id = g.id) ORDER BY g.n`
)

// NewPortal implements endpoints.Store.
func (s *Store) NewPortal(ctx context.Context, call endpoints.Call, ids []int64, link func(time.Time) (endpoints.PortalLink, json.RawMessage)) (l endpoints.PortalLink, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		absent, err := query(ctx, tx, pgx.RowTo[int64], absentIDs, call.OrgID, orEmpty(ids))
		if err != nil {
			return err
		}
		if len(absent) > 0 {
			return endpoints.ErrNotFound("endpoint", absent[0])
		}
		var id int64
		var now time.Time
		if err := tx.QueryRow(ctx, nextID).Scan(&id); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, databaseNow).Scan(&now); err != nil {
			return err
		}
		made, extra := link(now)
		l = made
		_, err = outbox.Append(ctx, tx, call.Context,
			outbox.Event{OrgID: call.OrgID, AggregateType: portalType, AggregateID: id, Action: event.Pre(event.Create), RecordName: "portal link"},
			outbox.Event{OrgID: call.OrgID, AggregateType: portalType, AggregateID: id, Action: event.Post(event.Create), RecordName: "portal link", Extra: extra})
		return err
	})
	return l, err
}
