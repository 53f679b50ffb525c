// Package store keeps endpoints, what waits to be sent and every attempt in PostgreSQL. The worker's side
// (load.go, schedule.go, outcomes.go) sees all organisations, a batch a statement; the API's side sees
// one. Statements are written by hand for pgx: what they cost is round trips. Rules live in packages delivery and
// schedule.
package store

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/pg"
)

// Store is the database. Safe for concurrent use.
type Store struct {
	pool *pgxpool.Pool
}

// New makes a store on a pool of the role sametick_webhook, which stays the caller's.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

// Worker is the database as the worker sees it: every organisation, and endpoints with their secrets open.
type Worker struct {
	*Store
	vault Vault
}

// Worker gives the worker's side.
func (s *Store) Worker(vault Vault) *Worker { return &Worker{s, vault} }

// everyOrg opens all organisations to a transaction, until its end.
const everyOrg = `SELECT set_config('sametick.every_org', 'on', true)`

// worker runs fn in a transaction that sees every organisation: the worker's, never the API's.
func (s *Store) worker(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return pg.InTx(ctx, s.pool, pg.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, everyOrg); err != nil {
			return err
		}
		return fn(tx)
	})
}
