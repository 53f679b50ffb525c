package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/services/api-gateway/internal/events"
)

// ledger is an append-only table whose rows are counted by blocks of ids once nothing can be added to them
// (pkg/outbox/migrations, 00003 for events and 00007 for audit entries), and the tables of its counts.
type ledger struct{ table, counts, actorCounts, times string }

const (
	// Up to which id the rows are counted by blocks.
	countedThrough = `SELECT coalesce(max(part) / 10 + 1, 0) * 50000 FROM sametick.%s`

	// The parts that a range of times touches, and which of them it does not hold whole.
	touchedParts = `
WITH span AS (
  SELECT min(part) AS first, max(part) AS last FROM sametick.%[1]s
   WHERE ($1::timestamptz IS NULL OR max_at > $1) AND ($2::timestamptz IS NULL OR min_at < $2))
SELECT coalesce(first, 1), coalesce(last, 0), ARRAY(
  SELECT part FROM sametick.%[1]s
   WHERE part BETWEEN first AND last AND NOT (($1::timestamptz IS NULL OR min_at > $1) AND ($2::timestamptz IS NULL OR max_at < $2)) ORDER BY part)
  FROM span`

	maxID = 1<<63 - 1
)

// listing is one question to a ledger on its way: in one snapshot what there is, how many match in each stretch of
// ids, and the page, which is looked for only where those counts say that it is.
type listing struct {
	ledger
	org      int64
	actor    *int64
	from, to *time.Time
	// few: an index leads to the rows, and no counts are kept of them.
	few bool
	// narrow adds to a statement what else must hold of a row.
	narrow func(*statement)
	// counted gives a join and a condition for the counts n that match; nil when all do.
	counted func(*statement) (join, condition string)

	runs      []events.Blocks
	stretches []events.Stretch
}

// begin begins the snapshot and finds the stretches to count. more and read may ask for something else on the way.
func (l *listing) begin(ctx context.Context, c *pgxpool.Conn, more func(*pgx.Batch), read func(pgx.BatchResults) error) error {
	var counted int64
	var times *events.Times
	b := transaction(l.org, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	b.Queue(fmt.Sprintf(countedThrough, l.times))
	if l.from != nil || l.to != nil {
		times = &events.Times{}
		b.Queue(fmt.Sprintf(touchedParts, l.times), l.from, l.to)
	}
	more(b)
	err := send(ctx, c, b, 2, func(results pgx.BatchResults) error {
		if err := results.QueryRow().Scan(&counted); err != nil {
			return err
		}
		if times != nil {
			if err := results.QueryRow().Scan(&times.First, &times.Last, &times.Partial); err != nil {
				return err
			}
		}
		return read(results)
	})
	if l.few {
		l.stretches = []events.Stretch{{Hi: maxID, Timed: true}}
	} else {
		l.runs, l.stretches = events.Stretches(counted, times)
	}
	return err
}

// count asks for the matches of counted blocks, which become stretches, then of the other stretches, and gives the sum.
func (l *listing) count(ctx context.Context, c *pgxpool.Conn) (total int64, err error) {
	var blocks []events.Stretch
	b := &pgx.Batch{}
	for _, r := range l.runs {
		l.queueBlocks(b, r)
	}
	err = send(ctx, c, b, 0, func(results pgx.BatchResults) error {
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
		return 0, err
	}
	if l.actor != nil { // only blocks in which the actor is busy are counted
		l.stretches = append(l.stretches, events.Between(l.runs, blocks)...)
	}
	if err := l.countLive(ctx, c); err != nil {
		return 0, err
	}
	l.stretches = append(l.stretches, blocks...)
	for i := range l.stretches {
		total += l.stretches[i].Matches
	}
	return total, nil
}

// queueBlocks asks for each block's matches. Of an actor's blocks those without a match are told too.
func (l *listing) queueBlocks(b *pgx.Batch, r events.Blocks) {
	s := &statement{}
	s.and("org_id = " + s.arg(l.org))
	s.and("block >= " + s.arg(r.From))
	s.and("block < " + s.arg(r.To))
	table := l.counts
	if l.actor != nil {
		table = l.actorCounts
		s.and("actor_id = " + s.arg(*l.actor))
	}
	join, sum := "", "sum(count)"
	if l.counted != nil {
		var condition string
		join, condition = l.counted(s)
		sum = "coalesce(sum(count) FILTER (WHERE " + condition + "), 0)"
	}
	b.Queue("SELECT block, "+sum+"::bigint FROM sametick."+table+" n"+join+" WHERE "+strings.Join(s.where, " AND ")+" GROUP BY block", s.args...)
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

// readPage reads up to limit rows at a place and ends the snapshot: their ids from an index alone, where one has all
// that is asked, then the rows.
func readPage[T any](ctx context.Context, c *pgxpool.Conn, l *listing, at events.Place, ascending bool, limit int64, columns string, read pgx.RowToFunc[T]) (page []T, err error) {
	s := l.statement(at.Timed)
	s.and("id > " + s.arg(at.Lo))
	s.and("id <= " + s.arg(at.Hi))
	order := " ORDER BY id DESC"
	if ascending {
		order = " ORDER BY id"
	}
	ids := s.from(order + " LIMIT " + s.arg(at.Skip+limit))
	sql := columns + " FROM sametick." + l.table + " JOIN (SELECT id AS found FROM (" + ids + ") i" + order + " LIMIT " + s.arg(limit) +
		" OFFSET " + s.arg(at.Skip) + ") p ON id = found WHERE org_id = $1" + order
	b := &pgx.Batch{}
	b.Queue(sql, s.args...)
	b.Queue("COMMIT")
	err = send(ctx, c, b, 0, func(results pgx.BatchResults) error {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, read)
		return err
	})
	return page, err
}

// statement collects what matches, but for where.
type statement struct {
	table string
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

// statement begins with $1, the organisation.
func (l *listing) statement(timed bool) *statement {
	s := &statement{table: l.table}
	s.and("org_id = " + s.arg(l.org))
	if l.actor != nil {
		s.and("actor_id = " + s.arg(*l.actor))
	}
	if timed && l.from != nil {
		s.and("occurred_at > " + s.arg(*l.from))
	}
	if timed && l.to != nil {
		s.and("occurred_at < " + s.arg(*l.to))
	}
	l.narrow(s)
	return s
}

// from gives a query of the ids; limit, which may be empty, holds for each kind.
func (s *statement) from(limit string) string {
	one := "SELECT id FROM sametick." + s.table + " WHERE " + strings.Join(s.where, " AND ") + limit
	if s.each == "" {
		return one
	}
	return "SELECT e.id FROM " + s.each + " CROSS JOIN LATERAL (" + one + ") e"
}
