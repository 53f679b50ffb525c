package store_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

func TestMain(m *testing.M) { relaytest.Main(m) }

func upkeep(t *testing.T, db *pgtest.DB, events time.Duration) *store.Upkeep {
	return &store.Upkeep{Pool: pgtest.Pool(t, db.URLAs(t, "sametick_relay")), StreamRetention: time.Hour, EventRetention: events,
		Logger: slog.New(slog.DiscardHandler)}
}

// ledger writes n rows, a second apart, the newest of them `age` old.
func ledger(t *testing.T, pool *pgxpool.Pool, n int, age time.Duration) {
	_, err := pool.Exec(t.Context(), `
INSERT INTO sametick.relay_batches (batch, snapshot, max_id, positions, system_identifier, timeline, claimed_at)
SELECT b, '3:3:', b, array_fill(b::bigint, '{16}'), 1, 1, clock_timestamp() - $2::interval - ($1 - b) * interval '1 second'
  FROM generate_series(1, $1) b`, n, age)
	require.NoError(t, err)
}

func TestLedgerIsThinnedAndKeepsItsNewestRow(t *testing.T) {
	db := relaytest.Database(t)
	pool := db.Pool(t)
	ledger(t, pool, 1800, 15*time.Minute) // from 45 to 15 minutes ago
	u := upkeep(t, db, 0)
	before, err := store.NewLog(pool).HeadsAt(t.Context(), 30*time.Minute)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, u.Run(t.Context()))
	}
	left := relaytest.Count(t, pool, "sametick.relay_batches")
	require.Greater(t, left, int64(29), "one a minute")
	require.Less(t, left, int64(33), "one a minute, and the newest")
	heads, err := store.NewLog(pool).Heads(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1800, heads[0])
	after, err := store.NewLog(pool).HeadsAt(t.Context(), 30*time.Minute)
	require.NoError(t, err)
	require.InDelta(t, before[0], after[0], 60)

	_, err = pool.Exec(t.Context(), "UPDATE sametick.relay_batches SET claimed_at = claimed_at - interval '1 day'")
	require.NoError(t, err)
	require.NoError(t, upkeep(t, db, 0).Run(t.Context()))
	require.EqualValues(t, 1, relaytest.Count(t, pool, "sametick.relay_batches"), "the cursor, however old")
}

// A relay that slept through the thinning has an old number, which is free again.
func TestAnOldNumberIsNotClaimedAgain(t *testing.T) {
	db := relaytest.Database(t)
	pool := db.Pool(t)
	ledger(t, pool, 100, time.Hour)
	require.NoError(t, upkeep(t, db, 0).Run(t.Context()))
	s, err := store.OpenSession(t.Context(), db.URLAs(t, "sametick_relay"))
	require.NoError(t, err)
	defer s.Close()
	c := sequence.First(sequence.Identity{SystemIdentifier: 1, Timeline: 1})
	c.Batch = 50
	_, err = s.Claim(&sequence.Batch{Cursor: c, Events: []sequence.Event{{ID: 1, Position: 1}}})
	require.True(t, errs.HasReason(err, store.ReasonClaimLost), "%v", err)
	c.Batch = 101
	_, err = s.Claim(&sequence.Batch{Cursor: c, Events: []sequence.Event{{ID: 1, Position: 1}}})
	require.NoError(t, err, "the next number is")
	c.Batch, c.Snapshot = 102, sequence.Snapshot{Xmin: 1 << 40, Xmax: 1 << 40}
	_, err = s.Claim(&sequence.Batch{Cursor: c})
	require.Error(t, err, "a snapshot of a future that was lost")
}

// events writes ten partitions of ten events a day old, with positions; all but the last ten are settled.
func oldEvents(t *testing.T, pool *pgxpool.Pool) {
	for _, sql := range []string{
		"DROP TABLE sametick.events_1, sametick.events_10000001, sametick.events_20000001, sametick.events_30000001, sametick.events_40000001",
		"SELECT sametick.ensure_partitions('events', 10, 200)",
		`INSERT INTO sametick.events (org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at)
SELECT 1, sametick.shard_of(1), 'task', 1, n, 'task.post_update', '{}', now() - interval '1 day' FROM generate_series(1, 100) n`,
		"INSERT INTO sametick.positions SELECT shard, sequence, id FROM sametick.events",
		`INSERT INTO sametick.relay_batches (batch, snapshot, max_id, positions, system_identifier, timeline)
VALUES (1, '3:3:', 90, array_fill(100::bigint, '{16}'), 1, 1), (2, pg_current_snapshot(), 90, array_fill(100::bigint, '{16}'), 1, 1)`,
		// Its snapshot is later than the row before, whose bound therefore counts.
		`INSERT INTO sametick.relay_batches (batch, snapshot, max_id, positions, system_identifier, timeline)
VALUES (3, pg_current_snapshot(), 100, array_fill(100::bigint, '{16}'), 1, 1)`,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
}

func TestRetentionWaitsForConsumers(t *testing.T) {
	db := relaytest.Database(t)
	pool := db.Pool(t)
	oldEvents(t, pool)
	count := func() int64 { return relaytest.Count(t, pool, "sametick.events") }
	require.NoError(t, upkeep(t, db, 48*time.Hour).Run(t.Context()))
	require.EqualValues(t, 100, count(), "not old enough")

	cursor := func(position int) {
		_, err := pool.Exec(t.Context(), `INSERT INTO sametick.consumer_cursors VALUES ('webhooks', sametick.shard_of(1), $1)
ON CONFLICT (consumer, shard) DO UPDATE SET position = excluded.position`, position)
		require.NoError(t, err)
	}
	// Transactions of other databases of the cluster hold back what is settled, for as long as they last.
	passed := upkeep(t, db, time.Hour)
	becomes := func(want func(n int64) bool, what string) {
		relaytest.Eventually(t, func() bool {
			_, err := pool.Exec(t.Context(), `INSERT INTO sametick.relay_batches (batch, snapshot, max_id, positions, system_identifier, timeline)
SELECT max(batch) + 1, pg_current_snapshot(), 100, array_fill(100::bigint, '{16}'), 1, 1 FROM sametick.relay_batches`)
			require.NoError(t, err)
			require.NoError(t, passed.Run(t.Context()))
			return want(count())
		}, what)
	}
	cursor(35)
	becomes(func(n int64) bool { return n <= 70 }, "three partitions are passed whole")
	require.EqualValues(t, 70, count(), "and no more")
	require.Equal(t, count(), relaytest.Count(t, pool, "sametick.positions"), "positions go with them")
	first, err := store.NewLog(pool).First(t.Context(), 0)
	require.NoError(t, err)
	require.Zero(t, first)
	cursor(100)
	becomes(func(n int64) bool { return n <= 20 }, "all but the newest are passed")
	require.Positive(t, count(), "what may still get late neighbours stays")
}
