package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/events"
)

const (
	// Up to which id the events are counted by blocks.
	countedThrough = `SELECT coalesce(max(part) / 10 + 1, 0) * 50000 FROM sametick.event_times`

	// The parts that a range of times touches, and which of them it does not hold whole.
	touchedParts = `
WITH span AS (
  SELECT min(part) AS first, max(part) AS last FROM sametick.event_times
   WHERE ($1::timestamptz IS NULL OR max_at > $1) AND ($2::timestamptz IS NULL OR min_at < $2))
SELECT coalesce(first, 1), coalesce(last, 0), ARRAY(
  SELECT part FROM sametick.event_times
   WHERE part BETWEEN first AND last AND NOT (($1::timestamptz IS NULL OR min_at > $1) AND ($2::timestamptz IS NULL OR max_at < $2)) ORDER BY part)
  FROM span`

	// Each kind that the organisation has, by one probe of the index a kind: a skip scan.
	eventKinds = `
WITH RECURSIVE kinds AS (
  (SELECT aggregate_type, event_type FROM sametick.events WHERE org_id = $1 ORDER BY aggregate_type, event_type LIMIT 1)
  UNION ALL
  SELECT n.* FROM kinds k CROSS JOIN LATERAL (
    SELECT e.aggregate_type, e.event_type FROM sametick.events e
     WHERE e.org_id = $1 AND (e.aggregate_type, e.event_type) > (k.aggregate_type, k.event_type)
     ORDER BY e.aggregate_type, e.event_type LIMIT 1) n)
SELECT aggregate_type, event_type FROM kinds`
)

// ListEvents implements events.Store. It takes three round trips in one snapshot: what there is, how many
// match in each stretch of ids, and the page, which is looked for only where those counts say that it is.
func (s *Store) ListEvents(ctx context.Context, orgID int64, q events.Query) (page []event.Event, total int64, err error) {
	l := &listing{query: q, org: orgID}
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		none, err := l.plan(ctx, c)
		if err != nil || none {
			return err
		}
		if err := l.count(ctx, c); err != nil {
			return err
		}
		for i := range l.stretches {
			total += l.stretches[i].Matches
		}
		place, ok := events.Locate(l.stretches, q.Ascending, q.After, q.Page.Offset, q.Page.Limit)
		if !ok {
			return nil
		}
		page, err = l.page(ctx, c, place)
		return err
	})
	return page, total, pg.Translate(err)
}

// listing is one question on its way.
type listing struct {
	org   int64
	query events.Query
	// aggregates and kinds are the pairs that pass; nil when all do.
	aggregates, kinds []string
	runs              []events.Blocks
	stretches         []events.Stretch
}

// plan finds the kinds that pass and the stretches to count; none when nothing can match.
func (l *listing) plan(ctx context.Context, c *pgxpool.Conn) (none bool, err error) {
	var (
		counted int64
		times   *events.Times
		q       = &l.query
		filters = len(q.Types)+len(q.Events) > 0
	)
	b := transaction(l.org, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	b.Queue(countedThrough)
	if q.From != nil || q.To != nil {
		times = &events.Times{}
		b.Queue(touchedParts, q.From, q.To)
	}
	if filters {
		b.Queue(eventKinds, l.org)
	}
	err = send(ctx, c, b, 2, func(results pgx.BatchResults) error {
		if err := results.QueryRow().Scan(&counted); err != nil {
			return err
		}
		if times != nil {
			if err := results.QueryRow().Scan(&times.First, &times.Last, &times.Partial); err != nil {
				return err
			}
		}
		if !filters {
			return nil
		}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		l.aggregates, l.kinds = []string{}, []string{}
		var k events.Kind
		_, err = pgx.ForEachRow(rows, []any{&k.AggregateType, &k.EventType}, func() error {
			if q.Matches(k) {
				l.aggregates, l.kinds = append(l.aggregates, k.AggregateType), append(l.kinds, k.EventType)
			}
			return nil
		})
		return err
	})
	if q.AggregateID != nil { // few events: no counts are kept of entities
		l.stretches = []events.Stretch{{Hi: maxID, Timed: true}}
	} else {
		l.runs, l.stretches = events.Stretches(counted, times)
	}
	return filters && len(l.kinds) == 0, err
}

const maxID = 1<<63 - 1

// count asks for the matches of counted blocks, which become stretches, and of the other stretches.
func (l *listing) count(ctx context.Context, c *pgxpool.Conn) error {
	b := &pgx.Batch{}
	for _, r := range l.runs {
		l.queueBlocks(b, r)
	}
	for i := range l.stretches {
		p := l.stretches[i]
		s := l.statement(events.Place{Lo: p.Lo, Hi: p.Hi, Timed: p.Timed})
		b.Queue("SELECT count(*) FROM ("+s.from("")+") e", s.args...)
	}
	live := len(l.stretches)
	return send(ctx, c, b, 0, func(results pgx.BatchResults) error {
		for range l.runs {
			rows, err := results.Query()
			if err != nil {
				return err
			}
			var block, n int64
			if _, err := pgx.ForEachRow(rows, []any{&block, &n}, func() error {
				l.stretches = append(l.stretches, events.Stretch{Lo: block * events.BlockIDs, Hi: (block + 1) * events.BlockIDs, Matches: n})
				return nil
			}); err != nil {
				return err
			}
		}
		for i := range live {
			if err := results.QueryRow().Scan(&l.stretches[i].Matches); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *listing) queueBlocks(b *pgx.Batch, r events.Blocks) {
	args := []any{l.org, r.From, r.To}
	sql := "SELECT block, sum(count)::bigint FROM sametick.event_counts n"
	where := " WHERE org_id = $1 AND block >= $2 AND block < $3"
	if l.query.ActorID != nil {
		sql = "SELECT block, sum(count)::bigint FROM sametick.event_actor_counts n"
		args = append(args, *l.query.ActorID)
		where += fmt.Sprintf(" AND actor_id = $%d", len(args))
	}
	if l.kinds != nil {
		args = append(args, l.aggregates, l.kinds)
		sql += fmt.Sprintf(" JOIN unnest($%d::text[], $%d::text[]) k(a, t) ON n.aggregate_type = k.a AND n.event_type = k.t", len(args)-1, len(args))
	}
	b.Queue(sql+where+" GROUP BY block", args...)
}

// page reads the page at a place: its ids from an index alone, then the events.
func (l *listing) page(ctx context.Context, c *pgxpool.Conn, at events.Place) (page []event.Event, err error) {
	s := l.statement(at)
	order := " ORDER BY id DESC"
	if l.query.Ascending {
		order = " ORDER BY id"
	}
	ids := s.from(order + " LIMIT " + s.arg(at.Skip+l.query.Page.Limit))
	sql := eventColumns + " FROM sametick.events JOIN (SELECT id AS found FROM (" + ids + ") i" + order + " LIMIT " + s.arg(l.query.Page.Limit) +
		" OFFSET " + s.arg(at.Skip) + ") p ON id = found WHERE org_id = $1" + order
	b := &pgx.Batch{}
	b.Queue(sql, s.args...)
	b.Queue("COMMIT")
	err = send(ctx, c, b, 0, func(results pgx.BatchResults) error {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, readEvent)
		return err
	})
	return page, err
}

// statement collects what matches at a place.
type statement struct {
	args  []any
	where []string
	// each is set when kinds are looked for one by one.
	each string
}

func (s *statement) arg(v any) string {
	s.args = append(s.args, v)
	return fmt.Sprintf("$%d", len(s.args))
}

// statement chooses the index: an entity's, an actor's, each kind's, or the organisation's.
func (l *listing) statement(at events.Place) *statement {
	s, q := &statement{}, &l.query
	and := func(format string, v any) { s.where = append(s.where, fmt.Sprintf(format, s.arg(v))) }
	and("org_id = %s", l.org)
	if at.Lo > 0 {
		and("id > %s", at.Lo)
	}
	if at.Hi < maxID {
		and("id <= %s", at.Hi)
	}
	if q.AggregateID != nil {
		and("aggregate_id = %s", *q.AggregateID)
	}
	if q.ActorID != nil {
		and("actor_id = %s", *q.ActorID)
	}
	if at.Timed && q.From != nil {
		and("occurred_at > %s", *q.From)
	}
	if at.Timed && q.To != nil {
		and("occurred_at < %s", *q.To)
	}
	if l.kinds == nil {
		return s
	}
	list := fmt.Sprintf("unnest(%s::text[], %s::text[])", s.arg(l.aggregates), s.arg(l.kinds))
	if q.AggregateID == nil && q.ActorID == nil {
		s.each = list + " k(a, t)"
		s.where = append(s.where, "aggregate_type = k.a", "event_type = k.t")
		return s
	}
	s.where = append(s.where, "(aggregate_type, event_type) IN (SELECT * FROM "+list+")")
	if q.AggregateID != nil {
		and("aggregate_type = %s", q.Types[0])
	}
	return s
}

// from gives a query of the ids; limit, which may be empty, holds for each kind.
func (s *statement) from(limit string) string {
	one := "SELECT id FROM sametick.events WHERE " + strings.Join(s.where, " AND ") + limit
	if s.each == "" {
		return one
	}
	return "SELECT e.id FROM " + s.each + " CROSS JOIN LATERAL (" + one + ") e"
}
