package lead_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/services/outbox-relay/internal/lead"
	"github.com/sametick/sametick/services/outbox-relay/internal/publish"
	"github.com/sametick/sametick/services/outbox-relay/internal/redis"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

func TestMain(m *testing.M) { relaytest.Main(m) }

// anyone is a lock that everybody gets, so that several relays lead at once.
type anyone struct{}

func (anyone) Renew(context.Context) error { return nil }
func (anyone) Close()                      {}

// active is a relay of the product's parts that leads whatever others do.
type active struct {
	stats   lead.Stats
	publish publish.Stats
	lead    *lead.Lead
	stop    func()
}

type options struct {
	batch     int
	open      func(ctx context.Context) (lead.Session, error) // nil: the real one
	retention time.Duration
	chores    []lead.Chore
}

func startActive(t *testing.T, url, redisURL string, o options) *active {
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	streams := redis.New(func(ctx context.Context) (rueidis.Client, error) {
		return redisconn.Open(ctx, redisURL, redisconn.Options{})
	}, true)
	if o.open == nil {
		o.open = func(ctx context.Context) (lead.Session, error) { return store.OpenSession(ctx, url) }
	}
	if o.retention == 0 {
		o.retention = time.Hour
	}
	a := &active{stats: lead.Stats{Poll: func(time.Duration) {}}}
	events, log := store.NewLog(pool), slog.New(slog.DiscardHandler)
	a.lead = lead.New(lead.Config{
		TryLock: func(context.Context) (lead.Lock, error) { return anyone{}, nil }, Heartbeat: time.Second, Open: o.open,
		NewPublisher: func() lead.Publisher {
			return publish.New(publish.Config{Streams: streams, Cutter: streams, Log: events, Ledger: events,
				Owner: streams, Database: events.Database, Retention: o.retention, TrimEvery: 50 * time.Millisecond, Logger: log, Stats: &a.publish})
		},
		Chores: append(o.chores,
			lead.Chore{Name: "upkeep", Every: time.Second, Do: (&store.Upkeep{Pool: pool, StreamRetention: o.retention, Logger: log}).Run},
			lead.Chore{Name: "counts", Every: 100 * time.Millisecond, Do: (&store.Counts{Pool: pool}).Run}),
		ClaimLost: store.ReasonClaimLost, BatchEvents: o.batch, Logger: log, Stats: &a.stats,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.lead.Run(ctx, ctx) })
	a.stop = sync.OnceFunc(func() { cancel(); wg.Wait(); streams.Close(); pool.Close() })
	t.Cleanup(a.stop)
	return a
}

func redisClient(t *testing.T, url string) rueidis.Client {
	o, err := rueidis.ParseURL(url)
	require.NoError(t, err)
	o.DisableCache = true
	c, err := rueidis.NewClient(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// writer makes transactions of all kinds: early xid and late commit, several entities, savepoints that
// are rolled back, aborts. Deadlocks and cut connections just abort one.
func writer(ctx context.Context, t *testing.T, pool *pgxpool.Pool, seed uint64, transactions int, written *atomic.Int64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for range transactions {
		if n, ok := transaction(ctx, pool, r); ok {
			written.Add(int64(n))
		}
	}
	_ = t
}

func transaction(ctx context.Context, pool *pgxpool.Pool, r *rand.Rand) (events int, committed bool) {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return 0, false
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if r.IntN(2) == 0 { // an xid long before the first event
		if _, err := tx.Exec(ctx, "SELECT pg_current_xact_id(), pg_sleep($1)", float64(r.IntN(20))/1000); err != nil {
			return 0, false
		}
	}
	const record = "SELECT sametick.record_event($1, 'task', $2, 'post_update')"
	for range 1 + r.IntN(3) {
		if _, err := tx.Exec(ctx, record, 1+r.IntN(6), 1+r.IntN(3)); err != nil {
			return 0, false
		}
		events++
		if r.IntN(4) > 0 {
			continue
		}
		sub, err := tx.Begin(ctx)
		if err != nil {
			return 0, false
		}
		if _, err := sub.Exec(ctx, record, 1+r.IntN(6), 1+r.IntN(3)); err != nil {
			return 0, false
		}
		if r.IntN(2) == 0 {
			events++
			err = sub.Commit(ctx)
		} else {
			err = sub.Rollback(ctx)
		}
		if err != nil {
			return 0, false
		}
	}
	if r.IntN(5) == 0 {
		return 0, false
	}
	if r.IntN(3) == 0 {
		if _, err := tx.Exec(ctx, "SELECT pg_sleep($1)", float64(r.IntN(30))/1000); err != nil {
			return 0, false
		}
	}
	return events, tx.Commit(ctx) == nil
}

// writers runs several until they are done.
func writers(t *testing.T, pool *pgxpool.Pool, n, transactions int) int64 {
	var (
		wg      sync.WaitGroup
		written atomic.Int64
	)
	for i := range n {
		wg.Go(func() { writer(t.Context(), t, pool, uint64(i), transactions, &written) })
	}
	wg.Wait()
	return written.Load()
}
