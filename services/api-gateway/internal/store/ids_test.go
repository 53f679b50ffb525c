package store

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/pgtest"
)

// TestUnitDrawsIDs while somebody else, whose turn it is, waits for the unit's connection.
func TestUnitDrawsIDs(t *testing.T) {
	config, err := pgxpool.ParseConfig(pgtest.New(t).URL)
	require.NoError(t, err)
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(t.Context(), `CREATE SCHEMA sametick CREATE SEQUENCE record_ids`)
	require.NoError(t, err)
	c, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer c.Release()
	s := New(pool, pool)
	s.ids.filling <- struct{}{}
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), unitKey{}, c), 2*time.Second)
	defer cancel()
	_, err = s.ids.next(ctx)
	require.NoError(t, err)
}
