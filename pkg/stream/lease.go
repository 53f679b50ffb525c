package stream

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/pg"
)

// leases spreads the shards of a consumer over its replicas. It saves work and no more: a holder
// that is slow to notice that it lost a shard fails at Advance.
type leases struct {
	db               pg.Beginner
	consumer, holder string
	ttl              time.Duration
}

const (
	memberSQL = `
INSERT INTO sametick.consumer_members AS m (consumer, holder, expires_at) VALUES ($1, $2, clock_timestamp() + $3::interval)
ON CONFLICT (consumer, holder) DO UPDATE SET expires_at = excluded.expires_at`
	buryMembersSQL = `DELETE FROM sametick.consumer_members WHERE consumer = $1 AND expires_at < clock_timestamp()`
	countSQL       = `SELECT count(*)::int FROM sametick.consumer_members WHERE consumer = $1`
	renewSQL       = `
UPDATE sametick.consumer_leases SET expires_at = clock_timestamp() + $3::interval WHERE consumer = $1 AND holder = $2`
	giveBackSQL = `DELETE FROM sametick.consumer_leases WHERE consumer = $1 AND holder = $2 AND shard = ANY($3)`
	takeSQL     = `
INSERT INTO sametick.consumer_leases AS l (consumer, shard, holder, expires_at)
SELECT $1, s, $2, clock_timestamp() + $3::interval
  FROM generate_series(0, $4::int - 1) s
 WHERE NOT EXISTS (SELECT FROM sametick.consumer_leases h WHERE h.consumer = $1 AND h.shard = s AND h.expires_at >= clock_timestamp())
 ORDER BY s
 LIMIT greatest($5::int - (SELECT count(*)::int FROM sametick.consumer_leases h WHERE h.consumer = $1 AND h.holder = $2), 0)
ON CONFLICT (consumer, shard) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
 WHERE l.expires_at < clock_timestamp()`
	heldSQL = `SELECT shard::int FROM sametick.consumer_leases WHERE consumer = $1 AND holder = $2 ORDER BY shard`

	leaveLeasesSQL = `DELETE FROM sametick.consumer_leases WHERE consumer = $1 AND holder = $2`
	leaveMemberSQL = `DELETE FROM sametick.consumer_members WHERE consumer = $1 AND holder = $2`
)

// renew keeps and takes, and gives the shards that are held for the next ttl, up to the share, and what is held in
// excess of it, for the others to take once it is given back.
func (l leases) renew(ctx context.Context) (held, excess []int, err error) {
	err = pg.InTx(ctx, l.db, pg.TxOptions{Retries: 5}, func(tx pgx.Tx) error {
		var members int
		b := &pgx.Batch{}
		b.Queue(memberSQL, l.consumer, l.holder, l.ttl)
		b.Queue(buryMembersSQL, l.consumer)
		b.Queue(renewSQL, l.consumer, l.holder, l.ttl)
		b.Queue(countSQL, l.consumer).QueryRow(func(row pgx.Row) error { return row.Scan(&members) })
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		share := (event.Shards + members - 1) / members
		b = &pgx.Batch{}
		b.Queue(takeSQL, l.consumer, l.holder, l.ttl, event.Shards, share)
		b.Queue(heldSQL, l.consumer, l.holder).Query(func(rows pgx.Rows) (err error) {
			held, err = pgx.CollectRows(rows, pgx.RowTo[int])
			return err
		})
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		share = min(share, len(held))
		held, excess = held[:share], held[share:]
		return nil
	})
	return held, excess, err
}

// giveBack lets others take shards.
func (l leases) giveBack(ctx context.Context, shards []int) error {
	return pg.InTx(ctx, l.db, pg.TxOptions{Retries: 5}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, giveBackSQL, l.consumer, l.holder, shards)
		return err
	})
}

// leave gives everything back.
func (l leases) leave(ctx context.Context) error {
	return pg.InTx(ctx, l.db, pg.TxOptions{Retries: 5}, func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		b.Queue(leaveLeasesSQL, l.consumer, l.holder)
		b.Queue(leaveMemberSQL, l.consumer, l.holder)
		return tx.SendBatch(ctx, b).Close()
	})
}
