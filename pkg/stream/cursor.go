package stream

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
)

// ErrStaleCursor means that the cursor is not where the caller read from: another holder of the shard has moved
// it. The transaction must be rolled back, and the cursor read again.
var ErrStaleCursor = errs.New(errs.Aborted, "STALE_CURSOR", "another replica has taken these events")

const (
	loadSQL  = `SELECT position FROM sametick.consumer_cursors WHERE consumer = $1 AND shard = $2`
	beginSQL = `INSERT INTO sametick.consumer_cursors (consumer, shard, position) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	// The old position is the condition: of two holders, one commits what it derived, the other nothing.
	advanceSQL = `UPDATE sametick.consumer_cursors SET position = $4 WHERE consumer = $1 AND shard = $2 AND position = $3`
)

// Execer executes a statement: a transaction, a connection or a pool.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// RowQuerier reads one row: a transaction, a connection or a pool.
type RowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// LoadCursor gives a consumer's position in a shard; false when it has none yet.
func LoadCursor(ctx context.Context, db RowQuerier, consumer string, shard int) (int64, bool, error) {
	var position int64
	err := pg.Translate(db.QueryRow(ctx, loadSQL, consumer, shard).Scan(&position))
	if errs.KindOf(err) == errs.NotFound {
		return 0, false, nil
	}
	return position, err == nil, err
}

// BeginCursor gives a consumer its first position in a shard; one that is there stays.
func BeginCursor(ctx context.Context, db Execer, consumer string, shard int, position int64) error {
	_, err := db.Exec(ctx, beginSQL, consumer, shard, position)
	return pg.Translate(err)
}

// Advance moves a cursor in the transaction that commits what the consumer derived from (from, to].
// It errs with ErrStaleCursor when the cursor is not at from.
func Advance(ctx context.Context, tx Execer, consumer string, shard int, from, to int64) error {
	tag, err := tx.Exec(ctx, advanceSQL, consumer, shard, from, to)
	if err != nil {
		return pg.Translate(err)
	}
	if tag.RowsAffected() != 1 {
		return ErrStaleCursor
	}
	return nil
}
