package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/audit"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

const (
	// abbrev shows an address without the mask of a single host, and any other with it.
	entryColumns = `SELECT id, org_id, actor_id, action, outcome, aggregate_type, aggregate_id, event_ids, changes::text,
		request_id, abbrev(ip), user_agent, occurred_at`

	entriesWhere = ` FROM sametick.audit_entries WHERE org_id = $1 AND ($2 = '' OR aggregate_type = $2)
		AND ($3::bigint IS NULL OR aggregate_id = $3) AND ($4::bigint IS NULL OR actor_id = $4) AND ($5 = '' OR action = $5)
		AND ($6 = '' OR outcome = $6) AND ($7 = '' OR request_id = $7)
		AND ($8::timestamptz IS NULL OR occurred_at > $8) AND ($9::timestamptz IS NULL OR occurred_at < $9)`
	exportEntries = entryColumns + entriesWhere + ` AND id > $10 AND id <= $11 ORDER BY id LIMIT $12`

	getEntry    = entryColumns + ` FROM sametick.audit_entries WHERE org_id = $1 AND id = $2`
	newestEntry = `SELECT coalesce(max(id), 0) FROM sametick.audit_entries WHERE org_id = $1`
)

func entryArgs(orgID int64, q audit.Query, more ...any) []any {
	return append([]any{orgID, q.AggregateType, q.AggregateID, q.ActorID, q.Action, q.Outcome, q.RequestID, q.From, q.To}, more...)
}

// GetEntry implements audit.Store.
func (s *Store) GetEntry(ctx context.Context, orgID, id int64) (e audit.Entry, err error) {
	err = s.one(ctx, orgID, getEntry, []any{orgID, id}, func(row pgx.Row) (err error) {
		e, err = readEntry(row)
		return err
	})
	if errs.KindOf(err) == errs.NotFound {
		err = errs.New(errs.NotFound, "ENTRY_NOT_FOUND", "there is no such audit entry")
	}
	return e, err
}

// one reads one row for an organisation.
func (s *Store) one(ctx context.Context, orgID int64, sql string, args []any, read func(pgx.Row) error) error {
	b := batch(orgID)
	b.Queue(sql, args...)
	return pg.Translate(send(ctx, s.pool, b, 1, func(results pgx.BatchResults) error { return read(results.QueryRow()) }))
}

// NewestEntry implements audit.Store.
func (s *Store) NewestEntry(ctx context.Context, orgID int64) (id int64, err error) {
	err = s.one(ctx, orgID, newestEntry, []any{orgID}, func(row pgx.Row) error { return row.Scan(&id) })
	return id, err
}

// EntriesAfter implements audit.Store.
func (s *Store) EntriesAfter(ctx context.Context, orgID int64, q audit.Query, after, through int64, limit int) (list []audit.Entry, err error) {
	b := batch(orgID)
	b.Queue(exportEntries, entryArgs(orgID, q, after, through, limit)...)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) (err error) {
		list, err = entries(results)
		return err
	})
	return list, pg.Translate(err)
}

// RecordExport implements audit.Store. The export is the organisation's, whose id its record has too.
func (s *Store) RecordExport(ctx context.Context, call records.Call, filter []byte) error {
	b := batch(call.OrgID)
	if err := queueEvents(b, call, outbox.Event{OrgID: call.OrgID, AggregateType: "organization", AggregateID: call.OrgID,
		Action: "exported", EventType: "audit.exported", Extra: filter}); err != nil {
		return err
	}
	return s.write(ctx, b, func(pgx.BatchResults) error { return nil })
}

func entries(results pgx.BatchResults) ([]audit.Entry, error) {
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (audit.Entry, error) { return readEntry(row) })
}

func readEntry(row pgx.Row) (e audit.Entry, err error) {
	var changes *string
	err = row.Scan(&e.ID, &e.OrgID, &e.ActorID, &e.Action, &e.Outcome, &e.AggregateType, &e.AggregateID, &e.EventIDs, &changes,
		&e.RequestID, &e.IP, &e.UserAgent, &e.OccurredAt)
	if changes != nil {
		e.Changes = []byte(*changes)
	}
	return e, err
}
