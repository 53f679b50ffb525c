package judge

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/event"
)

// Log is the position log: of each shard, the indices into Facts by position-1; absent where the log
// names an event that does not exist.
type Log struct {
	shards [event.Shards][]int32
	// at is the position of each fact, 0 for none.
	at []int64
}

const absent = int32(-1)

// Head is the newest position of a shard.
func (l *Log) Head(shard int) int64 { return int64(len(l.shards[shard])) }

// fact gives what stands at a position: an index into Facts, or absent.
func (l *Log) fact(shard int, position int64) int32 {
	if position < 1 || position > l.Head(shard) {
		return absent
	}
	return l.shards[shard][position-1]
}

// Row is one row of the position log.
type Row struct {
	Shard             int
	Position, EventID int64
}

// LoadLog reads the position log and judges P2, P3 and P5 on the way.
func LoadLog(ctx context.Context, db Querier, f *Facts) (*Log, *Verdict, error) {
	rows, err := db.Query(ctx, `SELECT shard, position, event_id FROM sametick.positions ORDER BY shard, position`)
	if err != nil {
		return nil, nil, fmt.Errorf("read the position log: %w", err)
	}
	var (
		b = NewLogBuilder(f)
		r Row
	)
	_, err = pgx.ForEachRow(rows, []any{&r.Shard, &r.Position, &r.EventID}, func() error { b.Add(r); return nil })
	if err != nil {
		return nil, nil, fmt.Errorf("read the position log: %w", err)
	}
	l, v := b.Finish()
	return l, v, nil
}

// LogBuilder judges the position log row by row, in the order of shard and position.
type LogBuilder struct {
	facts *Facts
	log   *Log
	v     *Verdict
	order *order
}

// NewLogBuilder starts with an empty log.
func NewLogBuilder(f *Facts) *LogBuilder {
	return &LogBuilder{
		facts: f, order: newOrder(f),
		log: &Log{at: make([]int64, f.Len())},
		v:   &Verdict{What: "positions (P2 P3 P5)"},
	}
}

// Add takes the next row.
func (b *LogBuilder) Add(r Row) {
	v, f := b.v, b.facts
	v.Checked++
	list := b.log.shards[r.Shard]
	if missing := r.Position - int64(len(list)) - 1; missing > 0 {
		v.note(&v.Gaps, "shard %d: %d positions are missing before %d", r.Shard, missing, r.Position)
		for range missing {
			list = append(list, absent)
		}
	}
	i := f.find(r.EventID)
	b.log.shards[r.Shard] = append(list, int32(i))
	if i < 0 {
		v.note(&v.Foreign, "shard %d position %d is of event %d, which does not exist", r.Shard, r.Position, r.EventID)
		return
	}
	if before := b.log.at[i]; before > 0 {
		v.note(&v.Twice, "%s has positions %d and %d", f.describe(i), before, r.Position)
		return
	}
	b.log.at[i] = r.Position
	if int(f.list[i].shard) != r.Shard {
		v.note(&v.Foreign, "%s has a position in shard %d", f.describe(i), r.Shard)
	}
	b.order.check(v, i, fmt.Sprintf("at position %d", r.Position))
}

// Finish notes the events that have no position.
func (b *LogBuilder) Finish() (*Log, *Verdict) {
	for i, position := range b.log.at {
		if position == 0 {
			b.v.note(&b.v.Lost, "%s has no position", b.facts.describe(i))
		}
	}
	return b.log, b.v
}
