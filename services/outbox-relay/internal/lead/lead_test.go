package lead_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/services/outbox-relay/internal/lead"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

// settled waits until the streams hold all events, and compares all three.
func settled(t *testing.T, db *pgtest.DB, redisURL string) {
	t.Helper()
	pool, c := db.Pool(t), redisClient(t, redisURL)
	want := relaytest.Count(t, pool, "sametick.events")
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == want }, "%d events in the streams", want)
	relaytest.CheckLog(t, pool)
	relaytest.CheckStreams(t, pool, c)
}

// Two relays lead all the time, sessions are cut, Redis is emptied.
func TestTwoLeadersUnderDisturbance(t *testing.T) {
	t.Parallel()
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), redisClient(t, red.URL)
	one := startActive(t, db.URL, red.URL, options{batch: 5})
	two := startActive(t, db.URL, red.URL, options{batch: 3})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if i%3 == 2 {
				_ = c.Do(ctx, c.B().Flushall().Build()).Error()
				continue
			}
			_, _ = pool.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'outbox-relay sequence' ORDER BY random() LIMIT 1`)
		}
	})
	written := writers(t, pool, 8, 60)
	cancel()
	wg.Wait()
	require.Equal(t, written, relaytest.Count(t, pool, "sametick.events"))
	settled(t, db, red.URL)
	require.Positive(t, one.stats.Events.Load())
	require.Positive(t, two.stats.Events.Load())
	require.Positive(t, one.stats.ClaimsLost.Load()+two.stats.ClaimsLost.Load(), "they have met")
	require.Positive(t, one.stats.Restarts.Load()+two.stats.Restarts.Load(), "sessions were cut")
}

// An open transaction delays nobody, and its own events come when it commits.
func TestOpenTransactionDelaysNobody(t *testing.T) {
	t.Parallel()
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), redisClient(t, red.URL)
	startActive(t, db.URL, red.URL, options{batch: 100})
	open, err := pool.Begin(t.Context())
	require.NoError(t, err)
	relaytest.WriteTx(t, open, 1, 1, 4)
	for i := range int64(20) {
		relaytest.Write(t, pool, 2+i, 1, 1)
	}
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 20 }, "the others' events")
	require.NoError(t, open.Commit(t.Context()))
	settled(t, db, red.URL)
}

// Events of the largest size: an answer is cut by its bytes, and all of them come.
func TestLargeEvents(t *testing.T) {
	t.Parallel()
	db, red := relaytest.Database(t), redistest.New(t)
	pool := db.Pool(t)
	_, err := pool.Exec(t.Context(), `SELECT sametick.record_event(1 + i % 3, 'task', i, 'noted', extra => jsonb_build_object('text', repeat('x', 1900000))) FROM generate_series(1, 60) i`)
	require.NoError(t, err)
	a := startActive(t, db.URL, red.URL, options{batch: 5000})
	settled(t, db, red.URL)
	require.Greater(t, a.stats.Batches.Load(), int64(3), "114 MB are not one batch")
}

// broken fails one step, before or after it is done.
type broken struct {
	lead.Session
	steps *int
	at    int
}

var errBroken = errors.New("broken by the test")

func (b broken) step(do func() error) error {
	*b.steps++
	if *b.steps == b.at {
		return errBroken
	}
	if err := do(); err != nil {
		return err
	}
	*b.steps++
	if *b.steps == b.at {
		return errBroken
	}
	return nil
}

func (b broken) Poll(q sequence.Query) (a sequence.Answer, err error) {
	err = b.step(func() (err error) { a, err = b.Session.Poll(q); return err })
	return a, err
}

func (b broken) Claim(x *sequence.Batch) (xid uint64, err error) {
	err = b.step(func() (err error) { xid, err = b.Session.Claim(x); return err })
	return xid, err
}

// A difference of 11 events in pages of 4 with a late transaction among them; the relay dies at every step in turn.
func TestPagesSurviveACrashAtEachStep(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 14; at++ {
		t.Run(strconv.Itoa(at), func(t *testing.T) {
			t.Parallel()
			db, red := relaytest.Database(t), redistest.New(t)
			pool := db.Pool(t)
			late, err := pool.Begin(t.Context())
			require.NoError(t, err)
			relaytest.WriteTx(t, late, 1, 1, 3)
			relaytest.Write(t, pool, 2, 1, 1)
			first := startActive(t, db.URL, red.URL, options{batch: 4})
			relaytest.Eventually(t, func() bool { return first.stats.Events.Load() == 1 }, "the first event")
			first.stop()
			for i := range int64(8) {
				relaytest.Write(t, pool, 1, 2+i%2, 1)
			}
			require.NoError(t, late.Commit(t.Context()))
			steps := 0
			var sessions int
			startActive(t, db.URL, red.URL, options{batch: 4, open: func(ctx context.Context) (lead.Session, error) {
				s, err := store.OpenSession(ctx, db.URL)
				sessions++
				return broken{s, &steps, at}, err
			}})
			settled(t, db, red.URL)
			var pages int
			require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM sametick.relay_batches WHERE paging IS NOT NULL").Scan(&pages))
			require.Equal(t, 2, pages, "11 events in pages of 4, the last of them ends the paging")
		})
	}
}

func TestRedisOutOfMemory(t *testing.T) {
	t.Parallel()
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), redisClient(t, red.URL)
	a := startActive(t, db.URL, red.URL, options{batch: 50})
	relaytest.Write(t, pool, 1, 1, 5)
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 5 }, "the first events")
	require.NoError(t, c.Do(t.Context(), c.B().ConfigSet().ParameterValue().ParameterValue("maxmemory", "1").Build()).Error())
	for i := range int64(30) {
		relaytest.Write(t, pool, 1+i, 1, 10)
	}
	relaytest.Eventually(t, func() bool { return a.stats.Events.Load() == 305 && a.publish.Errors.Load() > 0 },
		"sequencing goes on while publishing fails")
	require.EqualValues(t, 5, relaytest.InStreams(t, c))
	require.NoError(t, c.Do(t.Context(), c.B().ConfigSet().ParameterValue().ParameterValue("maxmemory", "0").Build()).Error())
	settled(t, db, red.URL)
}

func TestRedisComesLateAndRestarts(t *testing.T) {
	t.Parallel()
	db, red := relaytest.Database(t), redistest.New(t)
	pool := db.Pool(t)
	require.NoError(t, red.Kill())
	a := startActive(t, db.URL, red.URL, options{batch: 50})
	relaytest.Write(t, pool, 1, 1, 5)
	relaytest.Eventually(t, func() bool { return a.stats.Events.Load() == 5 }, "sequencing without Redis")
	require.NoError(t, red.Start(t.Context()))
	settled(t, db, red.URL)
	require.NoError(t, red.Kill())
	require.NoError(t, red.Start(t.Context()))
	relaytest.Write(t, pool, 1, 1, 5)
	settled(t, db, red.URL)
}

// Streams that hold more than Postgres keep their positions: new events come after them.
func TestStreamsAheadOfPostgres(t *testing.T) {
	t.Parallel()
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), redisClient(t, red.URL)
	shard := event.ShardOf(1)
	before := startActive(t, db.URL, red.URL, options{batch: 50})
	relaytest.Write(t, pool, 1, 1, 2)
	settled(t, db, red.URL)
	before.stop()
	for p := 3; p <= 7; p++ {
		require.NoError(t, c.Do(t.Context(), c.B().Xadd().Key(relaytest.Key(shard)).Id(fmt.Sprintf("%d-0", p)).
			FieldValue().FieldValue("e", "{}").Build()).Error())
	}
	a := startActive(t, db.URL, red.URL, options{batch: 50})
	relaytest.Eventually(t, func() bool { return a.stats.Jumps.Load() == 1 }, "a jump")
	relaytest.Write(t, pool, 1, 1, 2)
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 9 }, "both events behind the others")
	var first int64
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT min(position) FROM sametick.positions WHERE position > 2").Scan(&first))
	require.EqualValues(t, 8, first)
}

// Entries that no relay has written, or that differ from the log, are not added to.
func TestForeignEntriesAreReplaced(t *testing.T) {
	t.Parallel()
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), redisClient(t, red.URL)
	a := startActive(t, db.URL, red.URL, options{batch: 50})
	relaytest.Write(t, pool, 1, 1, 3)
	settled(t, db, red.URL)
	key := relaytest.Key(event.ShardOf(1))
	require.NoError(t, c.Do(t.Context(), c.B().Xadd().Key(key).Id("*").FieldValue().FieldValue("hello", "world").Build()).Error())
	relaytest.Write(t, pool, 1, 1, 3)
	settled(t, db, red.URL)
	require.Zero(t, a.stats.Jumps.Load())

	require.NoError(t, c.Do(t.Context(), c.B().Xdel().Key(key).Id("4-0").Build()).Error(), "a hole")
	require.NoError(t, c.Do(t.Context(), c.B().Xtrim().Key(key).Maxlen().Threshold("0").Build()).Error(), "and nothing left")
	relaytest.Write(t, pool, 1, 1, 1)
	settled(t, db, red.URL)
}

// Postgres crashes: ids that its memory had given out come again.
func TestPostgresCrashes(t *testing.T) {
	t.Parallel()
	red := redistest.New(t)
	server := pgtest.Private(t, nil)
	require.NoError(t, relaytest.Migrate(t.Context(), server.URL))
	db := &pgtest.DB{URL: server.URL}
	startActive(t, server.URL, red.URL, options{batch: 5})
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		pool := db.Pool(t)
		for i := range 4 {
			wg.Go(func() {
				for n := int64(1); ctx.Err() == nil; n++ {
					_, _ = pool.Exec(ctx, "SELECT sametick.record_event($1, 'task', $2, 'post_update'), pg_current_xact_id()", int64(i+1), n%3+1)
				}
			})
		}
		relaytest.Eventually(t, func() bool {
			var n int
			return pool.QueryRow(ctx, "SELECT count(*) FROM sametick.relay_batches").Scan(&n) == nil && n > 20
		}, "some batches")
		require.NoError(t, server.Kill())
		cancel()
		wg.Wait()
		pool.Close()
		require.NoError(t, server.Start(t.Context()))
	}
	settled(t, db, red.URL)
}
