package store

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// State is what the ledger says of the relay, whoever leads.
type State struct {
	Cursor    sequence.Cursor
	ClaimedAt time.Time
	Now       sequence.Identity
	// Unsequenced events are committed and have no position, counted up to UnsequencedMax.
	Unsequenced int64
	// Consumers are the durable consumers' cursors by shard.
	Consumers []ConsumerCursor
}

// ConsumerCursor is how far a consumer has come in a shard.
type ConsumerCursor struct {
	Consumer string
	Shard    int
	Position int64
}

// UnsequencedMax bounds the count of State.
const UnsequencedMax = 100_000

const (
	// In the middle of a paged difference, what the pages before have taken is left out.
	unsequencedSQL = `
SELECT count(*) FROM (
  SELECT FROM sametick.events e
   WHERE e.id > $2 AND e.txid >= $1::text::xid8 AND (e.id > $4 OR NOT pg_visible_in_snapshot(e.txid, $5::text::pg_snapshot))
  UNION ALL
  SELECT FROM sametick.events e
   WHERE e.txid = ANY($3::text[]::xid8[]) AND e.id > $6 AND (e.id > $4 OR NOT pg_visible_in_snapshot(e.txid, $5::text::pg_snapshot))
  LIMIT 100000) n`

	consumersSQL = `SELECT consumer, shard, position FROM sametick.consumer_cursors ORDER BY shard, consumer`
)

// State reads the state.
func (l *Log) State(ctx context.Context) (st State, err error) {
	if st.Now, err = identity(ctx, l.pool); err != nil {
		return st, err
	}
	if st.Cursor, st.ClaimedAt, err = cursor(ctx, l.pool, st.Now); err != nil {
		return st, err
	}
	c, bounds, err := load(ctx, l.pool, st.Now)
	if err != nil {
		return st, err
	}
	after, paging := int64(0), c.Snapshot
	if c.Paging != nil {
		after, paging = c.PageAfter, *c.Paging
		c.Paging = nil
	}
	q := sequence.New(c, bounds, 1).Next()
	if st.Unsequenced, err = one[int64](ctx, l.pool, unsequencedSQL,
		strconv.FormatUint(c.Snapshot.Xmax, 10), q.Start, xids(c.Snapshot.Xip, nil), after, paging.String(), q.Floor); err != nil {
		return st, err
	}
	rows, err := l.pool.Query(ctx, consumersSQL)
	if err != nil {
		return st, pg.Translate(err)
	}
	st.Consumers, err = pgx.CollectRows(rows, pgx.RowToStructByPos[ConsumerCursor])
	return st, pg.Translate(err)
}
