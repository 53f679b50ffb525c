package store

import (
	"context"
	"math"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/audit"
	"github.com/sametick/sametick/services/api-gateway/internal/events"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
)

// ListEntries implements audit.Store, in three round trips.
func (s *Store) ListEntries(ctx context.Context, orgID int64, q audit.Query, before int64, p paging.Page) (page audit.Page, err error) {
	l := entryListing(orgID, &q)
	after := before
	if before == math.MaxInt64 { // from the newest
		after = 0
	}
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		if err := l.begin(ctx, c, func(*pgx.Batch) {}, func(pgx.BatchResults) error { return nil }); err != nil {
			return err
		}
		if page.Total, err = l.count(ctx, c); err != nil {
			return err
		}
		place, ok := events.Locate(l.stretches, false, after, p.Offset, p.Limit+1)
		if !ok {
			return nil
		}
		page.Entries, err = readPage(ctx, c, l, place, false, p.Limit+1, entryColumns,
			func(row pgx.CollectableRow) (audit.Entry, error) { return readEntry(row) })
		return err
	})
	if int64(len(page.Entries)) > p.Limit {
		page.Entries, page.More = page.Entries[:p.Limit], true
	}
	return page, pg.Translate(err)
}

// entryListing is a question about audit entries.
func entryListing(orgID int64, q *audit.Query) *listing {
	l := &listing{ledger: ledger{"audit_entries", "entry_counts", "entry_actor_counts", "entry_times"}, org: orgID,
		actor: q.ActorID, from: q.From, to: q.To, few: q.AggregateID != nil || q.RequestID != ""}
	kinds := func(s *statement) (where []string) {
		for _, f := range []struct{ column, value string }{{"aggregate_type", q.AggregateType}, {"action", q.Action}, {"outcome", q.Outcome}} {
			if f.value != "" {
				where = append(where, f.column+" = "+s.arg(f.value))
			}
		}
		return where
	}
	l.narrow = func(s *statement) {
		s.where = append(s.where, kinds(s)...)
		if q.AggregateID != nil {
			s.and("aggregate_id = " + s.arg(*q.AggregateID))
		}
		if q.RequestID != "" {
			s.and("request_id = " + s.arg(q.RequestID))
		}
	}
	if q.AggregateType+q.Action+q.Outcome != "" {
		l.counted = func(s *statement) (join, condition string) { return "", strings.Join(kinds(s), " AND ") }
	}
	return l
}
