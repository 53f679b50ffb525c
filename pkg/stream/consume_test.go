package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/stream/streamtest"
)

// database has the shared tables, and one for what a consumer derives: without any key, so that only
// the cursor stands between an event and its double.
func database(t *testing.T) (admin, worker *pgxpool.Pool) {
	t.Helper()
	var parts [][]byte
	require.NoError(t, fs.WalkDir(outbox.Migrations(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var b []byte
			b, err = fs.ReadFile(outbox.Migrations(), path)
			parts = append(parts, b)
		}
		return err
	}))
	db := pgtest.Migrated(t, "stream:"+pgtest.Fingerprint(parts...), func(ctx context.Context, url string) error {
		return outbox.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
	admin = db.Pool(t)
	_, err := admin.Exec(t.Context(), `CREATE TABLE sametick.derived (shard int, position bigint); GRANT ALL ON sametick.derived TO sametick_webhook`)
	require.NoError(t, err)
	return admin, pgtest.Pool(t, db.URLAs(t, "sametick_webhook"))
}

func derive(ctx context.Context, tx pgx.Tx, b stream.Batch) error {
	for _, e := range b.Entries {
		if _, err := tx.Exec(ctx, "INSERT INTO sametick.derived VALUES ($1, $2)", b.Shard, e.Position); err != nil {
			return err
		}
	}
	return nil
}

// verdict counts what was lost and what was taken twice.
func verdict(t *testing.T, admin *pgxpool.Pool, log *streamtest.Log) (lost, twice int) {
	t.Helper()
	rows, err := admin.Query(t.Context(), "SELECT shard, position FROM sametick.derived")
	require.NoError(t, err)
	type at struct{ Shard, Position int64 }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[at])
	require.NoError(t, err)
	seen := map[at]int{}
	for _, a := range all {
		seen[a]++
	}
	for shard := range event.Shards {
		for _, e := range log.Entries(shard, 0, 0) {
			if seen[at{int64(shard), e.Position}] == 0 {
				lost++
			}
		}
	}
	for _, n := range seen {
		twice += n - 1
	}
	return lost, twice
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, 20*time.Second, 20*time.Millisecond, what)
}

func caughtUp(t *testing.T, admin *pgxpool.Pool, log *streamtest.Log) func() bool {
	return func() bool {
		for shard := range event.Shards {
			position, _, err := stream.LoadCursor(t.Context(), admin, "test", shard)
			if err != nil || position < log.Head(shard) {
				return false
			}
		}
		return true
	}
}

// Three replicas come and go while events are appended; transactions fail before, in and after the
// work; a fourth replica believes that it holds every shard.
func TestConsumerTakesEachEventOnce(t *testing.T) {
	t.Parallel()
	admin, worker := database(t)
	f := redisFixture(t)
	boom := errors.New("boom")
	consumer := func(i int) *stream.Consumer {
		return &stream.Consumer{
			Name: "test", Holder: fmt.Sprint("replica-", i), DB: worker, Source: f.Source, LeaseTTL: 300 * time.Millisecond,
			Handle: func(ctx context.Context, tx pgx.Tx, b stream.Batch) error {
				if rand.IntN(4) == 0 {
					return boom
				}
				if err := derive(ctx, tx, b); err != nil {
					return err
				}
				if rand.IntN(4) == 0 {
					return boom
				}
				return nil
			},
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	for i := range 3 {
		go func() {
			for life := 0; ctx.Err() == nil; life++ {
				take, stop := context.WithTimeout(ctx, time.Duration(300+rand.IntN(500))*time.Millisecond)
				work, crash := context.WithCancel(ctx)
				if life%2 == 0 { // a crash: the transaction in hand is torn
					context.AfterFunc(take, crash)
				}
				if err := consumer(i).Run(take, work); err != nil {
					ended <- err
					crash()
					stop()
					return
				}
				crash()
				stop()
			}
			ended <- nil
		}()
	}
	for i := range 300 {
		f.Log.Append(int64(i%40+1), "task", "post_create", int64(i), "")
		require.NoError(t, f.Publish(t.Context()))
		if i%100 == 50 {
			require.NoError(t, f.Faults["flushed"](t.Context()))
		}
	}
	await(t, "caught up", caughtUp(t, admin, f.Log))
	cancel()
	for range 3 {
		require.NoError(t, <-ended)
	}
	lost, twice := verdict(t, admin, f.Log)
	require.Zero(t, lost, "lost")
	require.Zero(t, twice, "twice")
}

// The control: without the old position as the condition, two holders of a shard take events twice,
// and the verdict sees it.
func TestControlUnconditionalCursor(t *testing.T) {
	t.Parallel()
	admin, worker := database(t)
	f := redisFixture(t)
	org := streamtest.Orgs(2, 1)[0]
	for range 50 {
		f.Log.Append(org, "task", "post_create", 1, "")
	}
	for range 2 {
		r := f.Source.Follow()
		r.Follow(2, 0)
		for at := int64(0); at < 50; {
			batches, err := r.Next(t.Context())
			require.NoError(t, err)
			for _, b := range batches {
				require.NoError(t, pgx.BeginFunc(t.Context(), worker, func(tx pgx.Tx) error {
					at = b.Through
					return derive(t.Context(), tx, b) // and "UPDATE … WHERE consumer AND shard"
				}))
			}
		}
		r.Close()
	}
	lost, twice := verdict(t, admin, f.Log)
	require.Zero(t, lost)
	require.Equal(t, 50, twice)
}

func TestAdvanceRefusesAStaleCursor(t *testing.T) {
	t.Parallel()
	_, worker := database(t)
	require.NoError(t, stream.BeginCursor(t.Context(), worker, "c", 3, 10))
	require.NoError(t, stream.BeginCursor(t.Context(), worker, "c", 3, 99), "the second leaves it")
	require.NoError(t, stream.Advance(t.Context(), worker, "c", 3, 10, 20))
	require.ErrorIs(t, stream.Advance(t.Context(), worker, "c", 3, 10, 30), stream.ErrStaleCursor)
	require.ErrorIs(t, stream.Advance(t.Context(), worker, "c", 4, 0, 1), stream.ErrStaleCursor)
	position, ok, err := stream.LoadCursor(t.Context(), worker, "c", 3)
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 20, position)
}

// Shards are shared evenly, and those of a replica that vanishes are taken over.
func TestLeasesSpread(t *testing.T) {
	t.Parallel()
	admin, worker := database(t)
	f := redisFixture(t)
	holders := func() map[string]int {
		rows, err := admin.Query(t.Context(), "SELECT holder, count(*)::int FROM sametick.consumer_leases WHERE expires_at > clock_timestamp() GROUP BY 1")
		require.NoError(t, err)
		got := map[string]int{}
		var holder string
		var n int
		_, err = pgx.ForEachRow(rows, []any{&holder, &n}, func() error { got[holder] = n; return nil })
		require.NoError(t, err)
		return got
	}
	var stops []context.CancelFunc
	ended := make(chan error, 2)
	for _, name := range []string{"a", "b"} {
		ctx, stop := context.WithCancel(t.Context())
		stops = append(stops, stop)
		c := &stream.Consumer{Name: "test", Holder: name, DB: worker, Source: f.Source, Handle: derive, LeaseTTL: 300 * time.Millisecond}
		go func() { ended <- c.Run(ctx, context.WithoutCancel(ctx)) }()
	}
	await(t, "half each", func() bool { h := holders(); return h["a"] == 8 && h["b"] == 8 })
	_, err := admin.Exec(t.Context(), "INSERT INTO sametick.consumer_members VALUES ('test', 'crashed', clock_timestamp() + '400 ms')")
	require.NoError(t, err)
	await(t, "room for a third", func() bool { h := holders(); return h["a"] == 6 && h["b"] == 6 })
	await(t, "it never came", func() bool { h := holders(); return h["a"] == 8 && h["b"] == 8 })
	stops[0]()
	require.NoError(t, <-ended)
	await(t, "all", func() bool { h := holders(); return h["b"] == event.Shards && len(h) == 1 })
	stops[1]()
	require.NoError(t, <-ended)
	require.Empty(t, holders())
}

// What is committed is told in order, without a gap, of shards that are held; shards are given back, of a second
// replica's share and at the end, only after their release.
func TestConsumerTellsWhatItHolds(t *testing.T) {
	t.Parallel()
	admin, worker := database(t)
	log := streamtest.NewLog()
	var mu sync.Mutex
	held, begun, told, released := map[int]bool{}, map[int]bool{}, map[int]int64{}, map[int]bool{}
	var faults []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	leased := func(shard int) (n int) {
		if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM sametick.consumer_leases WHERE holder = 'a' AND shard = $1", shard).Scan(&n); err != nil {
			return -1
		}
		return n
	}
	a := &stream.Consumer{
		Name: "test", Holder: "a", DB: worker, Source: quick(log.Direct(), nil), Handle: derive, LeaseTTL: 600 * time.Millisecond,
		Begun: func(_ context.Context, shard int) {
			mu.Lock()
			defer mu.Unlock()
			check(held[shard], "shard %d is begun and not held", shard)
			begun[shard] = true
		},
		Committed: func(b stream.Batch) {
			mu.Lock()
			defer mu.Unlock()
			check(begun[b.Shard], "shard %d is not begun", b.Shard)
			check(b.After == told[b.Shard], "shard %d: %d after %d", b.Shard, b.After, told[b.Shard])
			told[b.Shard] = b.Through
		},
		Held: func(shards []int, until time.Time) {
			mu.Lock()
			defer mu.Unlock()
			clear(held)
			for _, s := range shards {
				held[s] = true
			}
			check(time.Until(until) <= 600*time.Millisecond, "held until %v", until)
		},
		Release: func(ctx context.Context, shards []int) {
			mu.Lock()
			defer mu.Unlock()
			check(ctx.Err() == nil, "no time to release")
			for _, s := range shards {
				released[s] = true
				check(leased(s) == 1, "shard %d was given back before its release", s)
			}
		},
	}
	for i := range 200 {
		log.Append(int64(i%40+1), "task", "post_create", 1, "")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- a.Run(ctx, t.Context()) }()
	await(t, "caught up", caughtUp(t, admin, log))
	ctxB, stopB := context.WithCancel(t.Context())
	b := &stream.Consumer{Name: "test", Holder: "b", DB: worker, Source: a.Source, Handle: derive, LeaseTTL: a.LeaseTTL}
	go func() { ended <- b.Run(ctxB, t.Context()) }()
	await(t, "half", func() bool { mu.Lock(); defer mu.Unlock(); return len(held) == 8 && len(released) == 8 })
	stop()
	stopB()
	require.NoError(t, <-ended)
	require.NoError(t, <-ended)
	require.Empty(t, faults)
	require.Len(t, released, event.Shards)
	for shard := range event.Shards {
		require.Equal(t, log.Head(shard), told[shard])
	}
	var n int
	require.NoError(t, admin.QueryRow(t.Context(), "SELECT count(*) FROM sametick.consumer_leases").Scan(&n))
	require.Zero(t, n)
}

// A consumer whose first events retention has dropped begins with the oldest kept.
func TestConsumerBeginsWithTheOldestKept(t *testing.T) {
	t.Parallel()
	admin, worker := database(t)
	log := streamtest.NewLog()
	org := streamtest.Orgs(0, 1)[0]
	for range 60 {
		log.Append(org, "task", "post_create", 1, "")
	}
	log.DropBefore(0, 31)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var lostEvents atomic.Int32
	c := &stream.Consumer{
		Name: "test", Holder: "a", DB: worker, Source: quick(log.Direct(), nil), Handle: derive,
		Trimmed: func(*stream.TrimmedError) { lostEvents.Add(1) },
	}
	go func() { ended <- c.Run(ctx, t.Context()) }()
	await(t, "caught up", caughtUp(t, admin, log))
	stop()
	require.NoError(t, <-ended)
	lost, twice := verdict(t, admin, log)
	require.Zero(t, lost+twice)
	require.Zero(t, lostEvents.Load())
}
