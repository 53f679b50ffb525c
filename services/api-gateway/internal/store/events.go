package store

import (
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
)

const (
	eventColumns = `SELECT id, org_id, aggregate_type, aggregate_id, event_type, payload::text, occurred_at`

	entityWhere = ` FROM sametick.events WHERE org_id = $1 AND aggregate_type = $2 AND aggregate_id = $3`
	countEntity = `SELECT count(*)` + entityWhere
	listEntity  = eventColumns + entityWhere + ` ORDER BY sequence LIMIT $4 OFFSET $5`

	hasType = `SELECT EXISTS (SELECT FROM sametick.events WHERE org_id = $1 AND aggregate_type = $2)
		OR EXISTS (SELECT FROM sametick.types WHERE org_id = $1 AND name = $2)`
	hasRecord = `SELECT EXISTS (SELECT FROM sametick.records WHERE org_id = $1 AND type = $2 AND id = $3)`
)

// ListEntityEvents implements events.Store.
func (s *Store) ListEntityEvents(ctx context.Context, orgID int64, typ string, id int64, p paging.Page) ([]event.Event, int64, error) {
	return s.page(ctx, orgID, countEntity, listEntity, []any{orgID, typ, id}, p)
}

// page gives the total and one page from one snapshot.
func (s *Store) page(ctx context.Context, orgID int64, count, list string, args []any, p paging.Page) (page []event.Event, total int64, err error) {
	err = s.read(ctx, orgID, func(b *pgx.Batch) {
		b.Queue(count, args...)
		b.Queue(list, append(args, p.Limit, p.Offset)...)
	}, func(results pgx.BatchResults) error {
		if err := results.QueryRow().Scan(&total); err != nil {
			return err
		}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, readEvent)
		return err
	})
	return page, total, err
}

func readEvent(row pgx.CollectableRow) (e event.Event, err error) {
	var payload string
	err = row.Scan(&e.ID, &e.OrgID, &e.AggregateType, &e.AggregateID, &e.EventType, &payload, &e.OccurredAt)
	e.Payload = []byte(payload)
	return e, err
}

// HasType implements events.Store.
func (s *Store) HasType(ctx context.Context, orgID int64, typ string) (bool, error) {
	return s.exists(ctx, orgID, hasType, orgID, typ)
}

// HasRecord implements events.Store.
func (s *Store) HasRecord(ctx context.Context, orgID int64, typ string, id int64) (bool, error) {
	return s.exists(ctx, orgID, hasRecord, orgID, typ, id)
}

func (s *Store) exists(ctx context.Context, orgID int64, sql string, args ...any) (yes bool, err error) {
	b := batch(orgID)
	b.Queue(sql, args...)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) error { return results.QueryRow().Scan(&yes) })
	return yes, pg.Translate(err)
}

func idText(id int64) string { return strconv.FormatInt(id, 10) }
