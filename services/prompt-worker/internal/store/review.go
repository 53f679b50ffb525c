package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

const (
	generation  = `SELECT coalesce((SELECT s.generation FROM sametick.review_sets s WHERE s.org_id = $1), 0)`
	reviewHooks = hookColumns + ` FROM sametick.prompt_hooks h WHERE h.org_id = $1 AND h.mode = 'review' AND h.enabled AND h.archived_at IS NULL ORDER BY h.id`
)

// Generation counts the changes of an organisation's review hooks and of what they run by. It takes one round trip.
func (s *Store) Generation(ctx context.Context, orgID int64) (n int64, err error) {
	b := &pgx.Batch{} // one implicit transaction
	b.Queue(everyOrg)
	b.Queue(generation, orgID).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	return n, pg.Translate(s.pool.SendBatch(ctx, b).Close())
}

// ReviewSetups gives an organisation's review hooks that are in force, with what they run by, and their generation.
func (s *Store) ReviewSetups(ctx context.Context, orgID int64) (list []*hooks.Setup, n int64, err error) {
	o := pg.TxOptions{Org: orgID, TxOptions: pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}}
	err = pg.InTx(ctx, s.pool, o, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, generation, orgID).Scan(&n); err != nil {
			return err
		}
		found, err := many(ctx, tx, readHook, reviewHooks, orgID)
		if err != nil {
			return err
		}
		for _, h := range found {
			set, err := setupOf(ctx, tx, h)
			if err != nil {
				return err
			}
			list = append(list, set)
		}
		return nil
	})
	return list, n, err
}

// KeepReviews keeps finished runs of reviews and dry runs, and what their calls took. Each is kept once, however often it is told.
func (s *Store) KeepReviews(ctx context.Context, list []*runs.Run, ends []Settlement) error {
	return s.worker(ctx, func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		queueSettle(b, ends)
		queueRuns(b, list)
		return tx.SendBatch(ctx, b).Close()
	})
}
