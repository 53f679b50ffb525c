package contender_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/bench/internal/backlog"
	"github.com/sametick/sametick/deploy/bench/internal/contender"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/pkg/redistest"
)

// Every contender does the same work: each event once, in the same stream, with the same JSON. A peer
// that did less would win for nothing.
func TestContendersDoTheSameWork(t *testing.T) {
	const events = 1000
	db := pgtest.New(t)
	require.NoError(t, outbox.Migrate(t.Context(), db.URL, slog.New(slog.DiscardHandler)))
	pool := db.Pool(t)
	require.NoError(t, backlog.Load(t.Context(), pool, events))
	redis := redistest.New(t)
	opts, err := rueidis.ParseURL(redis.URL)
	require.NoError(t, err)
	// One connection, made now: those that the client would add later look like leaks.
	opts.DisableCache, opts.AlwaysPipelining, opts.PipelineMultiplex = true, true, -1
	client, err := rueidis.NewClient(opts)
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.Do(t.Context(), client.B().Ping().Build()).Error())
	// A contender that leaves a goroutine behind would work on in the next one's round; the test's own
	// server and clients have theirs.
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())

	want := relayed(t, client, pool, contender.All()[1], contender.Target{DatabaseURL: db.URL, RedisURL: redis.URL}, events)
	for _, e := range want {
		require.InDelta(t, 450, len(e.envelope), 20, "the figures are quoted for events of 450 bytes")
	}
	for _, c := range contender.All()[2:] {
		t.Run(c.Name, func(t *testing.T) {
			got := relayed(t, client, pool, c, contender.Target{DatabaseURL: db.URL, RedisURL: redis.URL}, events)
			require.Len(t, got, len(want))
			for id, w := range want {
				require.Equal(t, w.stream, got[id].stream)
				require.JSONEq(t, w.envelope, got[id].envelope)
				require.Equal(t, w.fields, got[id].fields)
			}
		})
	}
}

type relayedEvent struct {
	stream, envelope string
	fields           map[string]string // but for the envelope
}

// relayed runs a contender until n entries are in Redis, and gives them by event id.
func relayed(t *testing.T, client rueidis.Client, pool *pgxpool.Pool, c contender.Contender, target contender.Target, n int) map[int64]relayedEvent {
	t.Helper()
	require.NoError(t, client.Do(t.Context(), client.B().Flushall().Build()).Error())
	if c.Load != nil {
		require.NoError(t, c.Load(t.Context(), pool))
	}
	require.NoError(t, c.Reset(t.Context(), pool))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, target) }()
	require.Eventually(t, func() bool { return len(entries(t, client)) >= n }, 30*time.Second, 10*time.Millisecond)
	stop()
	<-ended
	byID := map[int64]relayedEvent{}
	for _, e := range entries(t, client) {
		var head struct {
			ID int64 `json:"id"`
		}
		require.NoError(t, json.Unmarshal([]byte(e.envelope), &head))
		require.NotContains(t, byID, head.ID, "an event came twice")
		byID[head.ID] = e
	}
	require.Len(t, byID, n)
	return byID
}

func entries(t *testing.T, client rueidis.Client) []relayedEvent {
	t.Helper()
	var list []relayedEvent
	for _, key := range contender.StreamKeys() {
		found, err := client.Do(t.Context(), client.B().Xrange().Key(key).Start("-").End("+").Build()).AsXRange()
		require.NoError(t, err)
		for _, e := range found {
			r := relayedEvent{stream: key, envelope: e.FieldValues["e"], fields: e.FieldValues}
			delete(r.fields, "e")
			list = append(list, r)
		}
	}
	return list
}
