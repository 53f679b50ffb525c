package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/events"
)

// Each kind that the organisation has, by one probe of the index a kind: a skip scan.
const eventKinds = `
WITH RECURSIVE kinds AS (
  (SELECT aggregate_type, event_type FROM sametick.events WHERE org_id = $1 ORDER BY aggregate_type, event_type LIMIT 1)
  UNION ALL
  SELECT n.* FROM kinds k CROSS JOIN LATERAL (
    SELECT e.aggregate_type, e.event_type FROM sametick.events e
     WHERE e.org_id = $1 AND (e.aggregate_type, e.event_type) > (k.aggregate_type, k.event_type)
     ORDER BY e.aggregate_type, e.event_type LIMIT 1) n)
SELECT aggregate_type, event_type FROM kinds`

// ListEvents implements events.Store, in three round trips.
func (s *Store) ListEvents(ctx context.Context, orgID int64, q events.Query) (page []event.Event, total int64, err error) {
	l := eventListing(orgID, &q)
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		none, err := l.plan(ctx, c)
		if err != nil || none {
			return err
		}
		if total, err = l.count(ctx, c); err != nil {
			return err
		}
		place, ok := events.Locate(l.stretches, q.Ascending, q.After, q.Page.Offset, q.Page.Limit)
		if !ok {
			return nil
		}
		page, err = readPage(ctx, c, &l.listing, place, q.Ascending, q.Page.Limit, eventColumns, readEvent)
		return err
	})
	return page, total, pg.Translate(err)
}

// eventsListing is a question about events.
type eventsListing struct {
	listing
	query *events.Query
	// aggregates and kinds are the pairs that pass; nil when all do.
	aggregates, kinds []string
}

func eventListing(orgID int64, q *events.Query) *eventsListing {
	l := &eventsListing{query: q}
	l.listing = listing{ledger: ledger{"events", "event_counts", "event_actor_counts", "event_times"}, org: orgID,
		actor: q.ActorID, from: q.From, to: q.To, few: q.AggregateID != nil, narrow: l.narrowTo}
	return l
}

// plan finds the kinds that pass, and begins; none when nothing can match.
func (l *eventsListing) plan(ctx context.Context, c *pgxpool.Conn) (none bool, err error) {
	filters := len(l.query.Types)+len(l.query.Events) > 0
	more := func(b *pgx.Batch) {
		if filters {
			b.Queue(eventKinds, l.org)
		}
	}
	err = l.begin(ctx, c, more, func(results pgx.BatchResults) error {
		if !filters {
			return nil
		}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		l.aggregates, l.kinds, l.counted = []string{}, []string{}, l.countedKinds
		var k events.Kind
		_, err = pgx.ForEachRow(rows, []any{&k.AggregateType, &k.EventType}, func() error {
			if l.query.Matches(k) {
				l.aggregates, l.kinds = append(l.aggregates, k.AggregateType), append(l.kinds, k.EventType)
			}
			return nil
		})
		return err
	})
	return filters && len(l.kinds) == 0, err
}

func (l *eventsListing) pairs(s *statement) string {
	return fmt.Sprintf("unnest(%s::text[], %s::text[])", s.arg(l.aggregates), s.arg(l.kinds))
}

func (l *eventsListing) countedKinds(s *statement) (join, condition string) {
	return " LEFT JOIN " + l.pairs(s) + " k(a, t) ON n.aggregate_type = k.a AND n.event_type = k.t", "k.a IS NOT NULL"
}

// narrowTo chooses the index: an entity's, an actor's, each kind's, or the organisation's.
func (l *eventsListing) narrowTo(s *statement) {
	q := l.query
	if q.AggregateID != nil {
		s.and("aggregate_type = " + s.arg(q.Types[0]))
		s.and("aggregate_id = " + s.arg(*q.AggregateID))
	}
	switch {
	case l.kinds == nil:
	case q.AggregateID == nil && q.ActorID == nil:
		s.each = l.pairs(s) + " k(a, t)"
		s.and("aggregate_type = k.a")
		s.and("event_type = k.t")
	default:
		s.and("(aggregate_type, event_type) IN (SELECT * FROM " + l.pairs(s) + ")")
	}
}
