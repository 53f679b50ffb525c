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

// count asks for the matches of counted blocks, which become stretches, then of the other stretches.
func (l *listing) count(ctx context.Context, c *pgxpool.Conn) error {
	var blocks []events.Stretch
	b := &pgx.Batch{}
	for _, r := range l.runs {
		l.queueBlocks(b, r)
	}
	err := send(ctx, c, b, 0, func(results pgx.BatchResults) error {
		for range l.runs {
			rows, err := results.Query()
			if err != nil {
				return err
			}
			var block, n int64
			if _, err := pgx.ForEachRow(rows, []any{&block, &n}, func() error {
				blocks = append(blocks, events.Stretch{Lo: block * events.BlockIDs, Hi: (block + 1) * events.BlockIDs, Matches: n})
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if l.query.ActorID != nil { // only blocks in which the actor is busy are counted
		l.stretches = append(l.stretches, events.Between(l.runs, blocks)...)
	}
	if err := l.countLive(ctx, c); err != nil {
		return err
	}
	l.stretches = append(l.stretches, blocks...)
	return nil
}

// queueBlocks asks for each block's matches. Of an actor's blocks those without a match are told too.
func (l *listing) queueBlocks(b *pgx.Batch, r events.Blocks) {
	args := []any{l.org, r.From, r.To}
	table, where, sum := "event_counts", "", "sum(count)"
	if l.query.ActorID != nil {
		args = append(args, *l.query.ActorID)
		table, where = "event_actor_counts", fmt.Sprintf(" AND actor_id = $%d", len(args))
	}
	join := ""
	if l.kinds != nil {
		args = append(args, l.aggregates, l.kinds)
		join = fmt.Sprintf(" LEFT JOIN unnest($%d::text[], $%d::text[]) k(a, t) ON n.aggregate_type = k.a AND n.event_type = k.t", len(args)-1, len(args))
		sum = "coalesce(sum(count) FILTER (WHERE k.a IS NOT NULL), 0)"
	}
	b.Queue("SELECT block, "+sum+"::bigint FROM sametick."+table+" n"+join+
		" WHERE org_id = $1 AND block >= $2 AND block < $3"+where+" GROUP BY block", args...)
}

// countLive counts the stretches, all those that are alike by one statement.
func (l *listing) countLive(ctx context.Context, c *pgxpool.Conn) error {
	b := &pgx.Batch{}
	var asked [][]int
	for _, timed := range []bool{false, true} {
		var lo, hi []int64
		var which []int
		for i, s := range l.stretches {
			if s.Timed == timed {
				lo, hi, which = append(lo, s.Lo), append(hi, s.Hi), append(which, i)
			}
		}
		if len(which) == 0 {
			continue
		}
		s := l.statement(timed)
		ranges := fmt.Sprintf("unnest(%s::bigint[], %s::bigint[]) WITH ORDINALITY r(lo, hi, n)", s.arg(lo), s.arg(hi))
		s.and("id > r.lo")
		s.and("id <= r.hi")
		b.Queue("SELECT (SELECT count(*) FROM ("+s.from("")+") e) FROM "+ranges+" ORDER BY r.n", s.args...)
		asked = append(asked, which)
	}
	return send(ctx, c, b, 0, func(results pgx.BatchResults) error {
		for _, which := range asked {
			rows, err := results.Query()
			if err != nil {
				return err
			}
			counts, err := pgx.CollectRows(rows, pgx.RowTo[int64])
			if err != nil {
				return err
			}
			for i, n := range counts {
				l.stretches[which[i]].Matches = n
			}
		}
		return nil
	})
}

// page reads the page at a place: its ids from an index alone, then the events.
func (l *listing) page(ctx context.Context, c *pgxpool.Conn, at events.Place) (page []event.Event, err error) {
	s := l.statement(at.Timed)
	s.and("id > " + s.arg(at.Lo))
	s.and("id <= " + s.arg(at.Hi))
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

// statement collects what matches, but for where.
type statement struct {
	args  []any
	where []string
	// each is set when kinds are looked for one by one.
	each string
}

func (s *statement) and(condition string) { s.where = append(s.where, condition) }

func (s *statement) arg(v any) string {
	s.args = append(s.args, v)
	return fmt.Sprintf("$%d", len(s.args))
}

// statement chooses the index: an entity's, an actor's, each kind's, or the organisation's.
func (l *listing) statement(timed bool) *statement {
	s, q := &statement{}, &l.query
	s.and("org_id = " + s.arg(l.org))
	if q.AggregateID != nil {
		s.and("aggregate_type = " + s.arg(q.Types[0]))
		s.and("aggregate_id = " + s.arg(*q.AggregateID))
	}
	if q.ActorID != nil {
		s.and("actor_id = " + s.arg(*q.ActorID))
	}
	if timed && q.From != nil {
		s.and("occurred_at > " + s.arg(*q.From))
	}
	if timed && q.To != nil {
		s.and("occurred_at < " + s.arg(*q.To))
	}
	if l.kinds == nil {
		return s
	}
	list := fmt.Sprintf("unnest(%s::text[], %s::text[])", s.arg(l.aggregates), s.arg(l.kinds))
	if q.AggregateID == nil && q.ActorID == nil {
		s.each = list + " k(a, t)"
		s.and("aggregate_type = k.a")
		s.and("event_type = k.t")
		return s
	}
	s.and("(aggregate_type, event_type) IN (SELECT * FROM " + list + ")")
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
