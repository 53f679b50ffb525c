package store

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/pg"
)

// Counts counts settled events by blocks of ids, for the exact totals of the API: see
// pkg/outbox/migrations/00003_event_counts.sql.
type Counts struct{ Pool *pgxpool.Pool }

// Run counts what can be counted, a block (50,000 ids) in a transaction of its own: it takes about 0.1 s
// of Postgres. Any number may run at once.
func (c *Counts) Run(ctx context.Context) error {
	for {
		var counted bool
		err := c.Pool.QueryRow(ctx, `SELECT sametick.count_next_block()`).Scan(&counted)
		if err != nil || !counted {
			return pg.Translate(err)
		}
	}
}
