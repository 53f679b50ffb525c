// Package store keeps what organisations set up for prompts, what waits to be run, every run and the budgets in
// PostgreSQL. The worker's side (schedule.go, queue.go, load.go, review.go) sees all organisations, a batch a statement;
// the API's side sees one. Statements are written by hand for pgx: what they cost is round trips. Rules live in packages
// hooks, runs and prompting.
package store

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Tx is a transaction that a caller's decision may read in.
type Tx = pgx.Tx

// Store is the database. Safe for concurrent use.
type Store struct {
	pool *pgxpool.Pool
	// orgBudget bounds an organisation's calls of models in a UTC day.
	orgBudget prompting.Limits
}

// New makes a store on a pool of the role sametick_prompt, which stays the caller's.
func New(pool *pgxpool.Pool, orgBudget prompting.Limits) *Store { return &Store{pool, orgBudget} }

const (
	// everyOrg opens all organisations to a transaction, until its end.
	everyOrg = `SELECT set_config('sametick.every_org', 'on', true)`
	// beginWorker does so with its beginning: one round trip, which counts where a transaction is for a few runs.
	beginWorker = `BEGIN; ` + everyOrg
)

// worker runs fn in a transaction that sees every organisation: the worker's, never the API's. One that lost to another is
// repeated.
func (s *Store) worker(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return pg.InTx(ctx, s.pool, pg.TxOptions{TxOptions: pgx.TxOptions{BeginQuery: beginWorker}, Retries: 3}, fn)
}

// org runs fn in a transaction that sees one organisation: that of the call's Idempotency-Key, where it has one.
func (s *Store) org(ctx context.Context, orgID int64, fn func(tx pgx.Tx) error) error {
	return idempotency.InTx(ctx, s.pool, pg.TxOptions{Org: orgID, Retries: 3}, fn)
}
