// Package backlog fills a database with committed events for a relay to drain. The rows are inserted
// straight into the table, past sametick.record_events: how fast they come in is not what is measured.
package backlog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

const (
	// perTransaction is how many events commit together: many transactions, as a platform leaves behind,
	// and not one, which would flatter anything that works by transaction ids.
	perTransaction = 100
	// Orgs is how many organisations the events belong to; they cover all shards.
	Orgs = 64
	// writers run side by side, so that ids and transaction ids interleave.
	writers = 2
)

// insert makes events with a JSON of about 450 bytes as the specification shows them, the size that
// the figures are quoted for.
const insert = `
INSERT INTO sametick.events (org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at)
SELECT org, sametick.shard_of(org), 'task', entity, 1 + i % 2, 'task.' || phase,
       jsonb_build_object('org_id', org, 'actor_id', 7, 'record_id', entity, 'record_type', 'task',
         'record_name', 'Quarterly review of entity ' || entity, 'action', phase, 'timestamp', '2026-04-12T14:30:00.000Z',
         'changes', jsonb_build_object('note', jsonb_build_object('before', NULL, 'after', md5(i::text) || left(md5(entity::text), 26)))),
       '2026-04-12T14:30:00Z'
  FROM generate_series($1::bigint, $2::bigint) i,
       LATERAL (SELECT 1 + (i / 2) % $3::bigint AS org, 1 + i / 2 AS entity,
                       CASE WHEN i % 2 = 0 THEN 'pre_create' ELSE 'post_create' END AS phase) v`

// Load commits n events of Orgs organisations and leaves the table vacuumed and analysed.
func Load(ctx context.Context, pool *pgxpool.Pool, n int) error { return LoadOf(ctx, pool, n, Orgs) }

// LoadOf does the same with organisations 1 to orgs, two events of each in turn.
func LoadOf(ctx context.Context, pool *pgxpool.Pool, n, orgs int) error {
	group, ctx2 := errgroup.WithContext(ctx)
	for w := range writers {
		group.Go(func() error { return load(ctx2, pool, w*perTransaction, n, orgs) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("load %d events: %w", n, err)
	}
	if _, err := pool.Exec(ctx, `VACUUM (ANALYZE) sametick.events`); err != nil {
		return fmt.Errorf("vacuum the events: %w", err)
	}
	return nil
}

// load commits every writers-th transaction of n events, beginning with the one that starts at from.
func load(ctx context.Context, pool *pgxpool.Pool, from, n, orgs int) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	// Only while loading; the connection is not used for anything that is measured.
	if _, err := conn.Exec(ctx, `SET synchronous_commit = off`); err != nil {
		return err
	}
	for i := from; i < n; i += writers * perTransaction {
		if _, err := conn.Exec(ctx, insert, i, min(i+perTransaction, n)-1, orgs); err != nil {
			return err
		}
	}
	_, err = conn.Exec(ctx, `RESET synchronous_commit`)
	return err
}
