package lead_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

// secondPartition lets the next event begin the second partition.
const (
	secondPartition = `SELECT setval(pg_get_serial_sequence('sametick.events', 'id'), 10000000)`
	dropFirst       = `SELECT sametick.drop_partitions(clock_timestamp() + interval '1 hour', 10000001)`
)

// A writing transaction is open while retention drops a partition: everybody else must go on writing.
func TestRetentionDelaysNobody(t *testing.T) {
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), redisClient(t, red.URL)
	a := startActive(t, db.URL, red.URL, options{batch: 100})
	relaytest.Write(t, pool, 1, 1, 3)
	_, err := pool.Exec(t.Context(), secondPartition)
	require.NoError(t, err)
	relaytest.Write(t, pool, 1, 1, 1)
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 4 }, "all published")
	a.stop()
	open, err := pool.Begin(t.Context())
	require.NoError(t, err)
	relaytest.WriteTx(t, open, 2, 1, 1)

	own := pgxPool(t, db.URLAs(t, "sametick_relay"))
	_, err = own.Exec(t.Context(), dropFirst)
	require.ErrorContains(t, err, "lock timeout", "it gives up soon")
	patient, give := context.WithTimeout(t.Context(), 5*time.Second)
	defer give()
	_, err = pool.Exec(patient, "SELECT sametick.record_event(3, 'task', 1, 'post_update')")
	require.NoError(t, err)
	require.EqualValues(t, 5, relaytest.Count(t, pool, "sametick.events"))

	require.NoError(t, open.Rollback(t.Context()))
	var dropped int
	require.NoError(t, own.QueryRow(t.Context(), dropFirst).Scan(&dropped))
	require.Equal(t, 1, dropped, "nothing is in the way any more")
}

// An event that commits late has a small id and a late position. When retention drops it, no reader
// may pass over its position in silence.
func TestRetentionIsNeverSilent(t *testing.T) {
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), redisClient(t, red.URL)
	a := startActive(t, db.URL, red.URL, options{batch: 100})
	late, err := pool.Begin(t.Context())
	require.NoError(t, err)
	relaytest.WriteTx(t, late, 1, 1, 1) // the last id of the first partition
	_, err = pool.Exec(t.Context(), secondPartition)
	require.NoError(t, err)
	published := func(n int64) {
		relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == n }, "%d published", n)
	}
	for i := range int64(3) { // positions 1 to 3, of the second partition
		relaytest.Write(t, pool, 1, 2, 1)
		published(i + 1)
	}
	require.NoError(t, late.Commit(t.Context())) // position 4, id 1
	published(4)
	relaytest.Write(t, pool, 1, 2, 1) // position 5
	published(5)
	a.stop()
	var dropped int
	require.NoError(t, pool.QueryRow(t.Context(), dropFirst).Scan(&dropped))
	require.Equal(t, 1, dropped)
	first, err := store.NewLog(pool).First(t.Context(), event.ShardOf(1))
	require.NoError(t, err)
	require.EqualValues(t, 5, first, "the log says that 1 to 4 are gone, for the sake of 4")
}

// The relay's role cannot end what is not over.
func TestTheRelaysRoleCannotDropTheNewest(t *testing.T) {
	db := relaytest.Database(t)
	pool := db.Pool(t)
	relaytest.Write(t, pool, 1, 1, 3)
	drop := func() (dropped int) {
		own := pgxPool(t, db.URLAs(t, "sametick_relay"))
		require.NoError(t, own.QueryRow(t.Context(), "SELECT sametick.drop_partitions('infinity', 9223372036854775807)").Scan(&dropped))
		return dropped
	}
	require.Zero(t, drop(), "the newest partition with rows")
	_, err := pool.Exec(t.Context(), secondPartition)
	require.NoError(t, err)
	relaytest.Write(t, pool, 1, 1, 1)
	require.Zero(t, drop(), "no event has a position yet")
	require.EqualValues(t, 4, relaytest.Count(t, pool, "sametick.events"))
}

func pgxPool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}
