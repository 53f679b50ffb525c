package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// Log reads the position log and the ledger. Safe for concurrent use.
type Log struct{ pool *pgxpool.Pool }

// NewLog reads through a pool.
func NewLog(pool *pgxpool.Pool) *Log { return &Log{pool} }

// window is how many positions one statement walks at most; it bounds the work for an organisation
// with few events in its shard.
const window = 10_000

const (
	// MATERIALIZED and the outer ORDER BY keep the walk along the log's key; each event is then one
	// probe of its partition.
	readSQL = `
SELECT p.position, ` + columns + `
  FROM (SELECT position, event_id FROM sametick.positions WHERE shard = $1 AND position > $2 ORDER BY position LIMIT $3) p
  LEFT JOIN sametick.events e ON e.id = p.event_id
 ORDER BY p.position`

	readOrgSQL = `
SELECT p.position, ` + columns + `
  FROM (SELECT position, event_id FROM sametick.positions WHERE shard = $1 AND position > $2 AND position <= $4 ORDER BY position) p
  JOIN sametick.events e ON e.id = p.event_id
 WHERE e.org_id = $5
 ORDER BY p.position LIMIT $3`

	// A promoted standby keeps both; a database made anew has another oid, a new cluster another identifier.
	databaseSQL = `
SELECT system_identifier || '/' || oid FROM pg_control_system(), pg_database WHERE datname = current_database()`

	headSQL  = `SELECT positions[$1 + 1] FROM sametick.relay_batches ORDER BY batch DESC LIMIT 1`
	headsSQL = `SELECT positions FROM sametick.relay_batches ORDER BY batch DESC LIMIT 1`
	firstSQL = `SELECT coalesce(min(position), 0) FROM sametick.positions WHERE shard = $1`
	// Where the shards stood before the time; all zero when the ledger does not reach back so far.
	headsAtSQL = `
SELECT positions FROM sametick.relay_batches WHERE claimed_at <= clock_timestamp() - $1::interval ORDER BY batch DESC LIMIT 1`
)

// Read gives up to limit events of a shard after a position, and no more than maxBytes of envelopes
// unless the first alone is longer. An org other than 0 gives only its events, and the walk may
// then end before limit is reached.
func (l *Log) Read(ctx context.Context, shard int, after int64, limit, maxBytes int, org int64) (sequence.Page, error) {
	// The head first: what it counts is visible to the statement after it.
	head, err := one[int64](ctx, l.pool, headSQL, shard)
	if err != nil || after >= head {
		return sequence.Page{Through: after, Head: head}, err
	}
	page := sequence.Page{Through: head, Head: head}
	sql, args := readSQL, []any{formats(), shard, after, limit}
	if org != 0 {
		page.Through = min(head, after+window)
		sql, args = readOrgSQL, append(args, page.Through, org)
	}
	rows, err := l.pool.Query(ctx, sql, args...)
	if err != nil {
		return page, pg.Translate(err)
	}
	defer rows.Close()
	var (
		decode decoder
		bytes  int
		walked int
		last   int64
	)
	for rows.Next() {
		raw := rows.RawValues()
		walked++
		if raw[1] != nil { // else retention has dropped it since
			e := decode.event(raw[1:])
			e.Position = integer(raw[0])
			if bytes += len(e.Envelope); bytes > maxBytes && len(page.Events) > 0 {
				walked = limit
				break
			}
			page.Events = append(page.Events, e)
		}
		last = integer(raw[0])
	}
	rows.Close()
	if walked == limit || last > page.Through {
		page.Through = last
	}
	page.Head = max(page.Head, page.Through)
	return page, pg.Translate(rows.Err())
}

// First gives the oldest position that a shard still has, 0 for none.
func (l *Log) First(ctx context.Context, shard int) (int64, error) {
	return one[int64](ctx, l.pool, firstSQL, shard)
}

// Database names the database, the same after a failover.
func (l *Log) Database(ctx context.Context) (string, error) {
	return one[string](ctx, l.pool, databaseSQL)
}

// Heads gives the newest position of every shard.
func (l *Log) Heads(ctx context.Context) (sequence.Positions, error) {
	return l.positions(ctx, headsSQL)
}

// HeadsAt gives the newest positions that were given `age` ago or before.
func (l *Log) HeadsAt(ctx context.Context, age time.Duration) (sequence.Positions, error) {
	return l.positions(ctx, headsAtSQL, age)
}

func (l *Log) positions(ctx context.Context, sql string, args ...any) (p sequence.Positions, err error) {
	list, err := one[[]int64](ctx, l.pool, sql, args...)
	copy(p[:], list)
	return p, err
}

// one reads one value; the zero value when there is no row.
func one[T any](ctx context.Context, db pg.RowQuerier, sql string, args ...any) (v T, err error) {
	err = pg.Translate(db.QueryRow(ctx, sql, args...).Scan(&v))
	if errs.KindOf(err) == errs.NotFound {
		return v, nil
	}
	return v, err
}
