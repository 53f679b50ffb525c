package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
)

const (
	baseSQL = `SELECT coalesce(max(id), 0) FROM sametick.events`
	// A snapshot's xmax would not do: it is the successor of the newest xid that has ended, and
	// transactions beyond it may run already.
	horizonSQL = `SELECT pg_current_xact_id()::text::bigint`
	oldestSQL  = `SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint`

	// One statement, one snapshot: every event that it sees has a position after it, and its
	// snapshot is the new cursor. Its transaction's id is drawn after the snapshot.
	rebaseSQL = `
WITH last AS (
  SELECT coalesce(max(batch), 0) AS batch FROM sametick.relay_batches
), heads AS (
  SELECT s.shard, greatest(
      coalesce((SELECT b.positions[s.shard + 1] FROM sametick.relay_batches b, last WHERE b.batch = last.batch), 0),
      coalesce((SELECT max(position) FROM sametick.positions p WHERE p.shard = s.shard), 0)) AS position
    FROM generate_series(0, 15) s(shard)
), placed AS (
  INSERT INTO sametick.positions (shard, position, event_id)
  SELECT e.shard, h.position + row_number() OVER (PARTITION BY e.shard ORDER BY e.id), e.id
    FROM sametick.events e JOIN heads h ON h.shard = e.shard
   WHERE NOT EXISTS (SELECT FROM sametick.positions p WHERE p.event_id = e.id)
  RETURNING shard
), after AS (
  SELECT array_agg(h.position + coalesce(n.placed, 0) ORDER BY h.shard) AS positions, coalesce(sum(n.placed), 0)::bigint AS placed
    FROM heads h LEFT JOIN (SELECT shard, count(*) AS placed FROM placed GROUP BY shard) n ON n.shard = h.shard
), claim AS (
  INSERT INTO sametick.relay_batches (batch, snapshot, max_id, base_id, positions, system_identifier, timeline)
  SELECT last.batch + 1, pg_current_snapshot(), coalesce((SELECT max(id) FROM sametick.events), 0), $1, after.positions, $2, $3 FROM last, after
)
SELECT placed FROM after`
)

// Rebase gives positions, in the order of ids, to all events that have none and makes this cluster's
// transaction ids the cursor's. It answers how many it placed. For databases restored from a dump;
// harmless otherwise. It waits for the transactions that run when it begins; they and later ones write on meanwhile.
//
// base_id is the greatest id visible at its begin. A transaction id is drawn after that, and the cursor's snapshot
// taken when all up to that id have ended: what is not visible in it got its xid later, and draws ids beyond base_id.
func Rebase(ctx context.Context, url string, log *slog.Logger) (int64, error) {
	lock, err := waitLock(ctx, url, log)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	conn, err := connect(ctx, url, "outbox-relay rebase", map[string]string{"statement_timeout": "0"})
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	now, err := identity(ctx, conn)
	if err != nil {
		return 0, err
	}
	base, err := one[int64](ctx, conn, baseSQL)
	if err != nil {
		return 0, err
	}
	horizon, err := one[int64](ctx, conn, horizonSQL)
	if err != nil {
		return 0, err
	}
	if err := waitEnded(ctx, conn, lock, horizon, log); err != nil {
		return 0, err
	}
	placed, err := one[int64](ctx, conn, rebaseSQL, base, now.SystemIdentifier, now.Timeline)
	if pg.IsUnique(err, "") {
		return 0, errs.New(errs.Aborted, ReasonClaimLost, "a relay is at work on this database: stop it, then rebase again").WithCause(err)
	}
	return placed, err
}

// waitLock keeps relays from leading meanwhile. One that leads goes on: it has to be stopped.
func waitLock(ctx context.Context, url string, log *slog.Logger) (*Lock, error) {
	for told := false; ; told = true {
		lock, err := TryLock(ctx, url)
		if lock != nil || err != nil {
			return lock, err
		}
		if !told {
			log.WarnContext(ctx, "a relay leads on this database: waiting for it to stop")
		}
		if err := sleep(ctx, Heartbeat); err != nil {
			return nil, err
		}
	}
}

func waitEnded(ctx context.Context, conn *pgx.Conn, lock *Lock, horizon int64, log *slog.Logger) error {
	for told := false; ; told = true {
		oldest, err := one[int64](ctx, conn, oldestSQL)
		if err != nil || oldest > horizon {
			return err
		}
		if !told {
			log.InfoContext(ctx, "waiting for the transactions that run to end", "oldest", oldest, "newest", horizon)
		}
		if err := lock.Renew(ctx); err != nil {
			return err
		}
		if err := sleep(ctx, Heartbeat); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
