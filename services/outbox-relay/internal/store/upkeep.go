package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// Upkeep keeps partitions ahead of the writers, the ledger short and, if asked to, history bounded.
type Upkeep struct {
	Pool *pgxpool.Pool
	// StreamRetention: the ledger must map times to positions at least as far back.
	StreamRetention time.Duration
	// EventRetention is how long events are kept; 0 for ever.
	EventRetention time.Duration
	Logger         *slog.Logger

	thinned int64 // rows of the ledger up to this batch are thinned out
}

const (
	ensureSQL = `SELECT sametick.ensure_partitions('events') + sametick.ensure_partitions('audit_entries')`

	// A busy relay writes hundreds of rows a second. Beyond ten minutes one a minute is enough for what
	// they are still for: times (HeadsAt) and bounds. Never the newest: it is the cursor.
	thinSQL = `
WITH old AS (
  SELECT batch, row_number() OVER (PARTITION BY date_trunc('minute', claimed_at) ORDER BY batch) AS n
    FROM sametick.relay_batches
   WHERE batch > $1 AND claimed_at < clock_timestamp() - interval '10 minutes'
), thinned AS (
  DELETE FROM sametick.relay_batches b USING old
   WHERE b.batch = old.batch AND old.n > 1 AND b.batch < (SELECT max(batch) FROM sametick.relay_batches)
)
SELECT coalesce(max(batch), $1) FROM old`

	// All that is older than the newest row that is beyond retention, which still tells where
	// retention begins.
	pruneSQL = `
DELETE FROM sametick.relay_batches WHERE batch < (
  SELECT max(batch) FROM sametick.relay_batches WHERE claimed_at < clock_timestamp() - $1::interval)`

	// The least event id that some consumer has not passed, or 0 when all have passed all. A consumer
	// that has a cursor for one shard is taken to start every other at 0.
	unpassedSQL = `
WITH passed AS (
  SELECT s.shard, min(coalesce(c.position, 0)) AS position
    FROM generate_series(0, 15) s(shard)
   CROSS JOIN (SELECT DISTINCT consumer FROM sametick.consumer_cursors) n
    LEFT JOIN sametick.consumer_cursors c ON c.consumer = n.consumer AND c.shard = s.shard
   GROUP BY s.shard
)
SELECT coalesce(min(first.event_id), 0) FROM passed
 CROSS JOIN LATERAL (SELECT min(event_id) AS event_id FROM sametick.positions p WHERE p.shard = passed.shard AND p.position > passed.position) first`

	dropSQL = `SELECT sametick.drop_partitions(clock_timestamp() - $1::interval, $2)`
)

// Run does the upkeep once. For one goroutine.
func (u *Upkeep) Run(ctx context.Context) error {
	made, err := one[int](ctx, u.Pool, ensureSQL)
	if err != nil {
		return err
	}
	if made > 0 {
		u.Logger.InfoContext(ctx, "made partitions ahead", "partitions", made)
	}
	if u.thinned, err = one[int64](ctx, u.Pool, thinSQL, u.thinned); err != nil {
		return err
	}
	if _, err := u.Pool.Exec(ctx, pruneSQL, u.StreamRetention); err != nil {
		return pg.Translate(err)
	}
	if u.EventRetention == 0 {
		return nil
	}
	return u.drop(ctx)
}

// drop ends history: partitions whose events are all old, sequenced, and passed by every consumer.
func (u *Upkeep) drop(ctx context.Context) error {
	c, bounds, err := load(ctx, u.Pool, sequence.Identity{})
	if err != nil {
		return err
	}
	settled := sequence.New(c, bounds, 1).Next().Floor
	unpassed, err := one[int64](ctx, u.Pool, unpassedSQL)
	if err != nil {
		return err
	}
	if unpassed > 0 {
		settled = min(settled, unpassed-1)
	}
	dropped := 0
	for { // each in a transaction of its own: writers wait for its end
		n, err := one[int](ctx, u.Pool, dropSQL, u.EventRetention, settled)
		if err != nil {
			return err
		}
		if dropped += n; n == 0 {
			break
		}
	}
	if dropped > 0 {
		u.Logger.InfoContext(ctx, "dropped old partitions of events", "partitions", dropped)
	}
	return nil
}
