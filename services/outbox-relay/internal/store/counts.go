package store

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/pg"
)

// Counts counts settled events and audit entries by blocks of ids, for the exact totals of the API: see
// pkg/outbox/migrations, 00003 and 00007.
type Counts struct{ Pool *pgxpool.Pool }

// Run counts what can be counted, a block (50,000 ids) in a transaction of its own: it takes about 0.1 s
// of Postgres. Any number may run at once.
func (c *Counts) Run(ctx context.Context) error {
	for _, next := range []string{`SELECT sametick.count_next_block()`, `SELECT sametick.count_next_entry_block()`} {
		for counted := true; counted; {
			if err := c.Pool.QueryRow(ctx, next).Scan(&counted); err != nil {
				return pg.Translate(err)
			}
		}
	}
	return nil
}
