// Package store is the relay's half in Postgres: polls and claims (Session), the leader's lock (Lock),
// the position log (Log), the upkeep of partitions and ledger (Upkeep) and rebase. What the
// numbers mean is said in internal/sequence.
//
// All SQL is handwritten pgx: polls and reads are the product's hottest path and want raw columns
// without allocations, and the rest is few enough to be kept in the same manner.
package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/pg"
)

// connect opens a session outside of any pool, for what must know which session it has.
func connect(ctx context.Context, url, name string, params map[string]string) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("store: the database URL does not parse") // the cause would quote it
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	c.RuntimeParams["application_name"] = name
	for k, v := range params {
		c.RuntimeParams[k] = v
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, pg.Translate(err)
	}
	return conn, nil
}
