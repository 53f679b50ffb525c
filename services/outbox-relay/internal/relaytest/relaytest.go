// Package relaytest has what the relay's tests share: databases, writers, and the checker that
// compares what was written with the position log and the streams. For tests only.
package relaytest

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pgtest"
)

// Database gives a migrated database.
func Database(t testing.TB) *pgtest.DB {
	t.Helper()
	names, err := fs.Glob(outbox.Migrations(), "*.sql")
	require.NoError(t, err)
	var parts [][]byte
	for _, n := range names {
		text, err := fs.ReadFile(outbox.Migrations(), n)
		require.NoError(t, err)
		parts = append(parts, text)
	}
	return pgtest.Migrated(t, "core "+pgtest.Fingerprint(parts...), Migrate)
}

// Empty gives a database without a schema.
func Empty(t testing.TB) *pgtest.DB {
	t.Helper()
	return pgtest.New(t)
}

// Migrate makes the core schema.
func Migrate(ctx context.Context, url string) error {
	return outbox.Migrate(ctx, url, slog.New(slog.DiscardHandler))
}

// Write records n events in a transaction of their own.
func Write(t testing.TB, pool *pgxpool.Pool, org, entity int64, n int) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	WriteTx(t, tx, org, entity, n)
	require.NoError(t, tx.Commit(t.Context()))
}

// WriteTx records n events in a transaction.
func WriteTx(t testing.TB, tx pgx.Tx, org, entity int64, n int) {
	t.Helper()
	events := make([]outbox.Event, n)
	for i := range events {
		events[i] = outbox.Event{OrgID: org, AggregateType: "task", AggregateID: entity, Action: "post_update", RecordName: "Größe \"1\""}
	}
	_, err := outbox.Append(t.Context(), tx, outbox.Context{}, events...)
	require.NoError(t, err)
}

// Eventually polls a condition until it holds, at most for a minute.
func Eventually(t testing.TB, condition func() bool, what string, args ...any) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within a minute: "+what, args...)
		}
	}
}

// Key names a shard's stream.
func Key(shard int) string { return "sametick:{" + strconv.Itoa(shard) + "}:events" }

// InStreams counts the entries of all streams; -1 when Redis does not answer.
func InStreams(t testing.TB, c rueidis.Client) int64 {
	t.Helper()
	var sum int64
	for i := range event.Shards {
		n, err := c.Do(t.Context(), c.B().Xlen().Key(Key(i)).Build()).AsInt64()
		if err != nil {
			return -1
		}
		sum += n
	}
	return sum
}

// Count counts the rows of a table.
func Count(t testing.TB, pool *pgxpool.Pool, table string) (n int64) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}

// CheckLog requires of the position log: each event once, no gap, an entity's events in their order.
func CheckLog(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	const sql = `
SELECT (SELECT count(*) FROM sametick.events e WHERE NOT EXISTS (SELECT FROM sametick.positions p WHERE p.event_id = e.id)),
  (SELECT count(*) - count(DISTINCT event_id) FROM sametick.positions),
  (SELECT count(*) FROM (SELECT position, row_number() OVER (PARTITION BY shard ORDER BY position) AS n FROM sametick.positions) g WHERE position <> n),
  (SELECT count(*) FROM (SELECT sequence, row_number() OVER (PARTITION BY e.org_id, e.aggregate_type, e.aggregate_id ORDER BY p.position) AS n
     FROM sametick.events e JOIN sametick.positions p ON p.event_id = e.id AND p.shard = e.shard) o WHERE sequence <> n)`
	var lost, twice, gaps, disorder int64
	require.NoError(t, pool.QueryRow(t.Context(), sql).Scan(&lost, &twice, &gaps, &disorder))
	require.Equal(t, "lost 0 twice 0 gaps 0 disorder 0", fmt.Sprintf("lost %d twice %d gaps %d disorder %d", lost, twice, gaps, disorder))
}

// CheckStreams requires that each stream holds exactly what the position log has, from position
// `from` of each shard on, and each envelope its event.
func CheckStreams(t testing.TB, pool *pgxpool.Pool, c rueidis.Client) {
	t.Helper()
	for shard := range event.Shards {
		entries, err := c.Do(t.Context(), c.B().Xrange().Key(Key(shard)).Start("-").End("+").Build()).AsXRange()
		require.NoError(t, err)
		rows, err := pool.Query(t.Context(), `
SELECT p.position, e.id, e.org_id, e.event_type FROM sametick.positions p JOIN sametick.events e ON e.id = p.event_id
 WHERE p.shard = $1 ORDER BY p.position`, shard)
		require.NoError(t, err)
		i := 0
		var (
			position, id, org int64
			eventType         string
		)
		_, err = pgx.ForEachRow(rows, []any{&position, &id, &org, &eventType}, func() error {
			require.Less(t, i, len(entries), "shard %d ends before position %d", shard, position)
			e := entries[i]
			i++
			require.Equal(t, fmt.Sprintf("%d-0", position), e.ID)
			var got struct {
				ID        int64  `json:"id"`
				OrgID     int64  `json:"org_id"`
				EventType string `json:"event_type"`
			}
			require.NoError(t, json.Unmarshal([]byte(e.FieldValues["e"]), &got))
			require.Equal(t, []any{id, org, eventType}, []any{got.ID, got.OrgID, got.EventType})
			require.Equal(t, strconv.FormatInt(org, 10), e.FieldValues["o"])
			return nil
		})
		require.NoError(t, err)
		require.Len(t, entries, i, "shard %d has more than the log", shard)
	}
}

// Main runs a package's tests and finds goroutines that outlive them; the server that pgtest starts
// when DATABASE_URL is not set lives as long as the process.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/sametick/sametick/pkg/devstack.StartProcess.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).writerDescriptor.func1"))
}
