package double

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// cursor is a consumer's in a shard.
type cursor struct {
	consumer string
	shard    int
	// apart: it is moved in a transaction of its own, before what follows from it.
	apart bool
}

// take moves the cursor by a page, and derives from what it passes.
func (c cursor) take(ctx context.Context, s *session, derive func(tx pgx.Tx, after, through int64) error) error {
	var after, through int64
	advance := func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO sametick.consumer_cursors VALUES ($1, $2, 0) ON CONFLICT DO NOTHING`, c.consumer, c.shard); err != nil {
			return fmt.Errorf("begin a cursor: %w", err)
		}
		err := tx.QueryRow(ctx, `WITH c AS (SELECT position FROM sametick.consumer_cursors WHERE consumer = $3 AND shard = $1 FOR UPDATE)
			SELECT c.position, coalesce((SELECT max(position) FROM (SELECT position FROM sametick.positions p WHERE p.shard = $1 AND p.position > c.position
				ORDER BY position LIMIT $2) n), c.position) FROM c`, c.shard, pageOfEvents, c.consumer).Scan(&after, &through)
		if err != nil {
			return fmt.Errorf("read a cursor: %w", err)
		}
		_, err = tx.Exec(ctx, `UPDATE sametick.consumer_cursors SET position = $2 WHERE consumer = $3 AND shard = $1`, c.shard, through, c.consumer)
		return err
	}
	follow := func(tx pgx.Tx) error {
		s.gate.pass()
		if through == after {
			return nil
		}
		return derive(tx, after, through)
	}
	s.gate.pass()
	if c.apart {
		if err := pgx.BeginFunc(ctx, s.conn, advance); err != nil || through == after {
			return err
		}
		pause(ctx, apart)
		return pgx.BeginFunc(ctx, s.conn, follow)
	}
	return pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		if err := advance(tx); err != nil {
			return err
		}
		return follow(tx)
	})
}
