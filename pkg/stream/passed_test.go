package stream_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/stream"
)

// counted counts transactions.
type counted struct {
	pg.Beginner
	begun atomic.Int64
}

func (c *counted) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	c.begun.Add(1)
	return c.Beginner.BeginTx(ctx, o)
}

// What does not concern a consumer costs it no transaction, the cursor follows all the same, and of what does nothing is
// lost. Control: without Passes each batch has its transaction.
func TestConsumerPasses(t *testing.T) {
	t.Parallel()
	for _, passing := range []bool{true, false} {
		t.Run(fmt.Sprint(passing), func(t *testing.T) {
			t.Parallel()
			admin, worker := database(t)
			f := redisFixture(t)
			db := &counted{Beginner: worker}
			concerns := func(e stream.Entry) bool { return e.AggregateType == "task" }
			var through atomic.Int64
			c := &stream.Consumer{
				Name: "test", Holder: "one", DB: db, Source: f.Source, LeaseTTL: time.Minute,
				Handle: func(ctx context.Context, tx pgx.Tx, b stream.Batch) error {
					b.Entries = slices.DeleteFunc(slices.Clone(b.Entries), func(e stream.Entry) bool { return !concerns(e) })
					through.Store(b.Through)
					return derive(ctx, tx, b)
				},
			}
			if passing {
				c.Passes = func(b stream.Batch) bool {
					through.Store(b.Through)
					return !slices.ContainsFunc(b.Entries, concerns)
				}
			}
			append1 := func(typ string, n int) {
				f.Log.Append(1, typ, "post_create", int64(n), "")
				require.NoError(t, f.Publish(t.Context()))
			}
			append1("note", 1)
			take, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- c.Run(take, t.Context()) }()
			await(t, "the cursor comes by itself", caughtUp(t, admin, f.Log))

			const many = 40
			before := db.begun.Load()
			for n := range many {
				append1("note", n)
				await(t, "it has been seen", func() bool { return through.Load() == int64(n)+2 })
			}
			append1("task", 1)
			var derived int
			count := func() bool {
				require.NoError(t, admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.derived`).Scan(&derived))
				return derived > 0
			}
			await(t, "what concerns it is derived", count)
			transactions := db.begun.Load() - before
			append1("note", 0)
			await(t, "the last one is seen", func() bool { return through.Load() == many+3 })
			stop()
			require.NoError(t, <-ended)
			require.True(t, caughtUp(t, admin, f.Log)(), "the cursor is at the head when it ends")
			require.True(t, count())
			require.Equal(t, 1, derived)
			require.Equal(t, passing, transactions < many/2, "%d transactions for %d events", transactions, many)
		})
	}
}
