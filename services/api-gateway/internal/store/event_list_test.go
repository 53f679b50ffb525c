package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/services/api-gateway/internal/events"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/store"
)

func TestMain(m *testing.M) {
	// The tests' own Postgres lives as long as their process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/sametick/sametick/pkg/devstack.StartProcess.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"))
}

// world is a database with events whose ids are far apart, so that few of them fill many blocks.
type world struct {
	t     *testing.T
	admin *pgxpool.Pool
	store *store.Store
	r     *rand.Rand
}

var kinds = []events.Kind{{AggregateType: "task", EventType: "task.pre_create"}, {AggregateType: "task", EventType: "task.post_create"},
	{AggregateType: "team", EventType: "team.post_update"}, {AggregateType: "user", EventType: "auth.login"}, {AggregateType: "user", EventType: "user.post_create"}}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(t *testing.T, seed uint64) *world {
	sum, err := store.Schema().Fingerprint()
	require.NoError(t, err)
	db := pgtest.Migrated(t, "api-gateway "+pgtest.Fingerprint(sum...), func(ctx context.Context, url string) error {
		return store.Schema().Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
	pool, err := pgxpool.New(t.Context(), db.URLAs(t, "sametick_api"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return &world{t: t, admin: db.Pool(t), store: store.New(pool, pool), r: rand.New(rand.NewPCG(seed, 1))}
}

// write adds n events of three organisations with ids after `from`, and gives the last id. Times follow
// ids but for a jitter, and a clock that went back a day at the start of every eighth event.
func (w *world) write(from int64, n int) int64 {
	b := &pgx.Batch{}
	for i := range n {
		from += 1 + w.r.Int64N(4000)
		k := kinds[w.r.IntN(len(kinds))]
		at := epoch.Add(time.Duration(from)*time.Second + time.Duration(w.r.IntN(3600))*time.Second)
		if i%97 == 0 {
			at = at.Add(-24 * time.Hour)
		}
		actor := "null"
		if a := w.r.IntN(4); a > 0 {
			actor = fmt.Sprint(a)
		}
		b.Queue(`INSERT INTO sametick.events (id, org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at)
OVERRIDING SYSTEM VALUE VALUES ($1, $2, 0, $3, $4, $1, $5, $6, $7)`, from, 1+w.r.IntN(3), k.AggregateType, 1+w.r.IntN(9), k.EventType,
			fmt.Sprintf(`{"actor_id": %s}`, actor), at)
	}
	require.NoError(w.t, w.admin.SendBatch(w.t.Context(), b).Close())
	return from
}

// settle makes the ledger say that nothing can be added up to an id, and counts what can be counted.
func (w *world) settle(id int64) (blocks int) {
	_, err := w.admin.Exec(w.t.Context(), `INSERT INTO sametick.relay_batches (batch, snapshot, max_id, positions, system_identifier, timeline)
SELECT 1 + coalesce(max(batch), 0), pg_current_snapshot(), $1, array_fill(0::bigint, '{16}'), 1, 1 FROM sametick.relay_batches`, id)
	require.NoError(w.t, err)
	for {
		var counted bool
		require.NoError(w.t, w.admin.QueryRow(w.t.Context(), `SELECT sametick.count_next_block()`).Scan(&counted))
		if !counted {
			return blocks
		}
		blocks++
	}
}

// settled waits for other databases' transactions, which hold back what is settled.
func (w *world) settled(id int64, blocks int) {
	for counted := 0; counted < blocks; {
		counted += w.settle(id)
		require.NoError(w.t, w.t.Context().Err())
	}
}

func (w *world) question() events.Query {
	q := events.Query{Ascending: w.r.IntN(2) == 0, Page: paging.Page{Limit: 1 + w.r.Int64N(30), Offset: w.r.Int64N(200)}}
	if w.r.IntN(3) == 0 {
		q.Types = []string{"task", "user"}[w.r.IntN(2):]
	}
	if w.r.IntN(3) == 0 {
		p, _ := event.ParsePattern([]string{"task.*", "*.post_create", "auth.login", "*", "none.such"}[w.r.IntN(5)])
		q.Events = []event.Pattern{p}
	}
	if w.r.IntN(3) == 0 {
		a := 1 + w.r.Int64N(3)
		q.ActorID = &a
	}
	if w.r.IntN(2) == 0 {
		from := epoch.Add(time.Duration(w.r.IntN(1_000_000)-10_000) * time.Second)
		q.From = &from
	}
	if w.r.IntN(2) == 0 {
		to := epoch.Add(time.Duration(w.r.IntN(1_100_000)) * time.Second)
		q.To = &to
	}
	if len(q.Types) == 1 && w.r.IntN(3) == 0 {
		id := 1 + w.r.Int64N(9)
		q.AggregateID = &id
	}
	return q
}

// check compares an answer with looking at every event.
func (w *world) check(org int64, q events.Query) {
	rows, err := w.admin.Query(w.t.Context(), `SELECT id, aggregate_type, event_type FROM sametick.events WHERE org_id = $1
AND ($2::bigint IS NULL OR (payload->>'actor_id')::bigint = $2) AND ($3::timestamptz IS NULL OR occurred_at > $3)
AND ($4::timestamptz IS NULL OR occurred_at < $4) AND ($5::bigint IS NULL OR aggregate_id = $5) ORDER BY id DESC`, org, q.ActorID, q.From, q.To, q.AggregateID)
	require.NoError(w.t, err)
	var want []int64
	var id int64
	var k events.Kind
	_, err = pgx.ForEachRow(rows, []any{&id, &k.AggregateType, &k.EventType}, func() error {
		if q.Matches(k) {
			want = append(want, id)
		}
		return nil
	})
	require.NoError(w.t, err)
	if q.Ascending {
		slices.Reverse(want)
	}
	page, total, err := w.store.ListEvents(w.t.Context(), org, q)
	require.NoError(w.t, err)
	require.EqualValues(w.t, len(want), total, "%+v", q)
	want = want[min(q.Page.Offset, total):]
	want = want[:min(q.Page.Limit, int64(len(want)))]
	var got []int64
	for _, e := range page {
		require.Equal(w.t, org, e.OrgID)
		got = append(got, e.ID)
	}
	require.Equal(w.t, append([]int64{}, want...), append([]int64{}, got...), "%+v", q)
}

// Exact totals and pages, for any question: before, while and after blocks are counted, and after retention.
func TestListEventsIsExact(t *testing.T) {
	w := newWorld(t, 7)
	last := w.write(0, 500) // about a million ids, twenty blocks
	ask := func() {
		for range 60 {
			w.check(1+w.r.Int64N(3), w.question())
		}
	}
	// An actor who is busy in one block, and so counted there.
	_, err := w.admin.Exec(t.Context(), `INSERT INTO sametick.events (id, org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at)
OVERRIDING SYSTEM VALUE SELECT 150001 + i * 9, 1, 0, 'task', 1, 1, 'task.' || CASE i % 2 WHEN 0 THEN 'pre_create' ELSE 'noted' END, '{"actor_id": 2}', $1::timestamptz + (150001 + i * 9) * interval '1 second'
FROM generate_series(1, 1500) i WHERE NOT EXISTS (SELECT FROM sametick.events WHERE id = 150001 + i * 9)`, epoch)
	require.NoError(t, err)
	ask()
	w.settled(last/2, int(last/2/events.BlockIDs))
	ask()
	w.settled(last, int(last/events.BlockIDs)-int(last/2/events.BlockIDs))
	last = w.write(last, 20)
	ask()
	// Retention ends in the middle of a block.
	for _, sql := range []string{
		`ALTER TABLE sametick.events DETACH PARTITION sametick.events_1`,
		`CREATE TABLE sametick.events_low (LIKE sametick.events INCLUDING ALL)`,
		`INSERT INTO sametick.events_low (id, txid, org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at) OVERRIDING SYSTEM VALUE
SELECT id, txid, org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at FROM sametick.events_1 WHERE id < 123457`,
		`CREATE TABLE sametick.events_high (LIKE sametick.events INCLUDING ALL)`,
		`INSERT INTO sametick.events_high (id, txid, org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at) OVERRIDING SYSTEM VALUE
SELECT id, txid, org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at FROM sametick.events_1 WHERE id >= 123457`,
		`ALTER TABLE sametick.events_low OWNER TO sametick_owner`, `ALTER TABLE sametick.events_high OWNER TO sametick_owner`,
		`ALTER TABLE sametick.events ATTACH PARTITION sametick.events_low FOR VALUES FROM (1) TO (123457)`,
		`ALTER TABLE sametick.events ATTACH PARTITION sametick.events_high FOR VALUES FROM (123457) TO (10000001)`,
	} {
		_, err := w.admin.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	dropped := 0
	for dropped == 0 {
		w.settle(last)
		require.NoError(t, w.admin.QueryRow(t.Context(), `SELECT sametick.drop_partitions(now() + interval '100 years', 123456)`).Scan(&dropped))
	}
	ask()
	var busy int
	require.NoError(t, w.admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.event_actor_counts`).Scan(&busy))
	require.Positive(t, busy)
	var counted, left int64
	require.NoError(t, w.admin.QueryRow(t.Context(), `SELECT sum(count) FROM sametick.event_counts`).Scan(&counted))
	require.NoError(t, w.admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.events WHERE id <= (SELECT (max(part) / 10 + 1) * 50000 FROM sametick.event_times)`).Scan(&left))
	require.Equal(t, left, counted)
}

// Nothing is counted while it can grow, and two who count at once count once.
func TestBlocksAreCountedOnce(t *testing.T) {
	w := newWorld(t, 11)
	last := w.write(0, 200)
	open, err := w.admin.Begin(t.Context()) // an id of the first block, to be committed later
	require.NoError(t, err)
	_, err = open.Exec(t.Context(), `INSERT INTO sametick.events (id, org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at)
OVERRIDING SYSTEM VALUE VALUES (49999, 1, 0, 'task', 1, 1, 'task.noted', '{}', $1)`, epoch)
	require.NoError(t, err)
	require.Zero(t, w.settle(last))
	w.check(1, events.Query{Page: paging.Page{Limit: 10}})
	require.NoError(t, open.Commit(t.Context()))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := 0; n < 3; {
				n++
				_, _ = w.admin.Exec(t.Context(), `SELECT sametick.count_next_block()`)
			}
		})
	}
	wg.Wait()
	w.settle(last)
	w.check(1, events.Query{Page: paging.Page{Limit: 100}})
	p, _ := event.ParsePattern("task.noted")
	w.check(1, events.Query{Events: []event.Pattern{p}, Page: paging.Page{Limit: 100}})
}

// The control: counting a block that can still grow is found by what the test above compares.
func TestControlCountedTooEarly(t *testing.T) {
	w := newWorld(t, 13)
	w.write(0, 60)
	_, err := w.admin.Exec(t.Context(), `SELECT sametick.count_block(0)`)
	require.NoError(t, err)
	_, err = w.admin.Exec(t.Context(), `INSERT INTO sametick.events (id, org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at)
OVERRIDING SYSTEM VALUE VALUES (49999, 1, 0, 'task', 1, 1, 'task.noted', '{}', $1)`, epoch)
	require.NoError(t, err)
	_, total, err := w.store.ListEvents(t.Context(), 1, events.Query{Page: paging.Page{Limit: 10}})
	require.NoError(t, err)
	var there int64
	require.NoError(t, w.admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.events WHERE org_id = 1`).Scan(&there))
	require.NotEqual(t, there, total)
}

// The other organisation's counts are as closed as its events.
func TestCountsOfOneOrganisation(t *testing.T) {
	w := newWorld(t, 17)
	last := w.write(0, 200)
	w.settled(last, int(last/events.BlockIDs))
	_, err := w.admin.Exec(t.Context(), `INSERT INTO sametick.event_actor_counts SELECT org, 1, 0, 'task', 'task.noted', 1000 FROM generate_series(1, 3) org`)
	require.NoError(t, err)
	for _, table := range strings.Fields("event_counts event_actor_counts") {
		tx, err := w.admin.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `SET LOCAL ROLE sametick_api`)
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `SELECT set_config('sametick.org_id', '2', true)`)
		require.NoError(t, err)
		var own, others int
		require.NoError(t, tx.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE org_id = 2), count(*) FILTER (WHERE org_id <> 2) FROM sametick.`+table).Scan(&own, &others))
		require.NoError(t, tx.Rollback(t.Context()))
		require.Positive(t, own)
		require.Zero(t, others)
	}
}
