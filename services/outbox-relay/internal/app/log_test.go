package app_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/rpc"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	"github.com/sametick/sametick/services/outbox-relay/internal/app"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
)

// orgsOfOneShard gives two organisations of the same shard, and one of another.
func orgsOfOneShard() (a, b, other int64) {
	a = 1
	for b = 2; event.ShardOf(b) != event.ShardOf(a); b++ {
		continue
	}
	for other = 2; event.ShardOf(other) == event.ShardOf(a); other++ {
		continue
	}
	return a, b, other
}

func TestLogReadsWhatRedisHolds(t *testing.T) {
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), client(t, red.URL)
	r := start(t, db.URLAs(t, "sametick_relay"), red.URL, "BATCH_EVENTS=7")
	a, b, other := orgsOfOneShard()
	shard := event.ShardOf(a)
	for i := range int64(10) {
		relaytest.Write(t, pool, a, i+1, 2)
		relaytest.Write(t, pool, b, i+1, 1)
	}
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 30 }, "30 events")
	relaytest.CheckStreams(t, pool, c)
	conn, err := rpc.Dial(r.grpc, rpc.ClientOptions{Token: token})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	log := relayv1.NewLogServiceClient(conn)

	entries, err := c.Do(t.Context(), c.B().Xrange().Key(relaytest.Key(shard)).Start("-").End("+").Build()).AsXRange()
	require.NoError(t, err)
	var got []*relayv1.Entry
	for after := int64(0); ; {
		res, err := log.Read(t.Context(), &relayv1.ReadRequest{Shard: int32(shard), After: after, Limit: 7})
		require.NoError(t, err)
		require.EqualValues(t, 30, res.GetHead())
		require.EqualValues(t, 1, res.GetFirst())
		got = append(got, res.GetEntries()...)
		if after == res.GetThrough() {
			break
		}
		after = res.GetThrough()
	}
	require.Len(t, got, len(entries))
	for i, e := range entries {
		require.Equal(t, fmt.Sprintf("%d-0", got[i].GetPosition()), e.ID)
		require.Equal(t, e.FieldValues["e"], string(got[i].GetEnvelope()))
		require.Equal(t, e.FieldValues["t"], got[i].GetEventType())
		require.Equal(t, e.FieldValues["o"], fmt.Sprint(got[i].GetOrgId()))
	}

	res, err := log.Read(t.Context(), &relayv1.ReadRequest{Shard: int32(shard), OrgId: b})
	require.NoError(t, err)
	require.Len(t, res.GetEntries(), 10)
	require.EqualValues(t, 30, res.GetThrough())
	res, err = log.Read(t.Context(), &relayv1.ReadRequest{Shard: int32(shard), OrgId: other})
	require.NoError(t, err)
	require.Empty(t, res.GetEntries())
	require.EqualValues(t, 30, res.GetThrough())
	res, err = log.Read(t.Context(), &relayv1.ReadRequest{Shard: int32(shard), After: 1 << 60})
	require.NoError(t, err)
	require.Empty(t, res.GetEntries())
	require.EqualValues(t, int64(1<<60), res.GetThrough())
	require.EqualValues(t, 30, res.GetHead())

	for _, bad := range []*relayv1.ReadRequest{{Shard: -1}, {Shard: 16}, {After: -1}, {Limit: -1}, {Limit: 10001}, {OrgId: -1}} {
		_, err := log.Read(t.Context(), bad)
		require.Equal(t, codes.InvalidArgument, status.Code(err), bad)
	}
	checkStatus(t, relayv1.NewRelayServiceClient(conn), shard)

	stranger, err := rpc.Dial(r.grpc, rpc.ClientOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, stranger.Close()) })
	_, err = relayv1.NewLogServiceClient(stranger).Read(t.Context(), &relayv1.ReadRequest{})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
}

func checkStatus(t *testing.T, relay relayv1.RelayServiceClient, shard int) {
	_, err := relay.Wake(t.Context(), &relayv1.WakeRequest{})
	require.NoError(t, err)
	st, err := relay.Status(t.Context(), &relayv1.StatusRequest{})
	require.NoError(t, err)
	require.True(t, st.GetActive())
	require.Zero(t, st.GetUnsequenced())
	require.Positive(t, st.GetBatch())
	require.NotEmpty(t, st.GetPostgresSystemIdentifier())
	require.Len(t, st.GetShards(), event.Shards)
	require.EqualValues(t, 30, st.GetShards()[shard].GetHead())
	require.EqualValues(t, 30, st.GetShards()[shard].GetStreamLast())
	require.EqualValues(t, 1, st.GetShards()[shard].GetStreamFirst())
}

// A dump restored into a young cluster: its rows' transaction ids lie in the future.
func TestRebaseAfterARestore(t *testing.T) {
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), client(t, red.URL)
	const future = `
INSERT INTO sametick.events (txid, org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at)
SELECT (1000000000 + n)::text::xid8, 1, sametick.shard_of(1), 'task', 1, n, 'task.post_update', '{}', now() FROM generate_series(1, 5) n`
	_, err := pool.Exec(t.Context(), future)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), "INSERT INTO sametick.aggregates VALUES (1, 'task', 1, 5)")
	require.NoError(t, err)
	url := db.URLAs(t, "sametick_relay")
	r := start(t, url, red.URL)
	relaytest.Eventually(t, func() bool {
		code, body := get(t, "http://"+r.ops+"/readyz")
		return code == 503 && strings.Contains(body, "outbox-relay rebase")
	}, "it refuses and says what to do")
	require.Equal(t, 0, r.stop())

	open, err := pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = open.Rollback(context.Background()) }) // else the pool's end would wait for it
	relaytest.WriteTx(t, open, 1, 2, 1)                           // ids around base_id, committed after the rebase
	code := make(chan int, 1)
	var log buffer
	env := map[string]string{"DATABASE_URL": url}
	go func() {
		code <- app.Run(t.Context(), []string{"rebase"}, func(k string) string { return env[k] }, &log)
	}()
	t.Cleanup(func() { t.Log(log.String()) })
	relaytest.Eventually(t, func() bool { return strings.Contains(log.String(), "waiting for the transactions") }, "rebase waits")
	relaytest.Write(t, pool, 2, 1, 2)
	require.NoError(t, open.Commit(t.Context()))
	require.Equal(t, 0, <-code, log.String())

	start(t, url, red.URL)
	relaytest.Write(t, pool, 1, 1, 2)
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 10 }, "all events")
	relaytest.CheckLog(t, pool)
	relaytest.CheckStreams(t, pool, c)
	var base int64
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT base_id FROM sametick.relay_batches ORDER BY batch DESC LIMIT 1").Scan(&base))
	require.EqualValues(t, 5, base, "the greatest id when it began")
}
