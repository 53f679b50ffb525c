package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
	"github.com/sametick/sametick/services/webhook-worker/internal/workertest"
)

// statement is what the store has sent.
type statement struct {
	sql  string
	args []any
}

// recorder notes statements about what there may be much of.
type recorder struct{ seen []statement }

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	if strings.Contains(d.SQL, "webhook_attempts") || strings.Contains(d.SQL, "webhook_queue") {
		r.seen = append(r.seen, statement{d.SQL, d.Args})
	}
	return ctx
}

func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// node is one of a plan.
type node struct {
	Type    string  `json:"Node Type"`
	Table   string  `json:"Relation Name"`
	Rows    float64 `json:"Actual Rows"`
	Loops   float64 `json:"Actual Loops"`
	Removed float64 `json:"Rows Removed by Filter"`
	Plans   []node
}

// looked counts the rows that scans have looked at.
func (n *node) looked() (rows float64) {
	if strings.HasSuffix(n.Type, "Scan") && n.Table != "" {
		rows = (n.Rows + n.Removed) * n.Loops
	}
	for i := range n.Plans {
		rows += n.Plans[i].looked()
	}
	return rows
}

// looked runs a statement as the service does for organisation 1.
func looked(t *testing.T, pool *pgxpool.Pool, s statement) (rows float64, took time.Duration) {
	t.Helper()
	var text string
	require.NoError(t, pg.InTx(t.Context(), pool, pg.TxOptions{Org: 1}, func(tx pgx.Tx) error {
		begin := time.Now()
		err := tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, FORMAT JSON) "+s.sql, s.args...).Scan(&text)
		took = time.Since(begin)
		return err
	}), s.sql)
	var plans []struct{ Plan node }
	require.NoError(t, json.Unmarshal([]byte(text), &plans))
	return plans[0].Plan.looked(), took
}

// However much there is of an endpoint, a page looks at one stretch of an index, statistics at a bounded part of it, and
// what is asked for by its id is found at once. BOUNDED_ATTEMPTS=1000000 shows it at another size.
func TestReadsAreBounded(t *testing.T) {
	t.Parallel()
	n := 120_000
	if text := os.Getenv("BOUNDED_ATTEMPTS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	db := workertest.Database(t)
	admin := db.Pool(t)
	for _, sql := range []string{
		`INSERT INTO sametick.webhook_attempts (org_id, endpoint_id, delivery_id, event_id, position, event_type, trigger, attempt, outcome, cause, latency_us, scheduled_at, created_at)
			SELECT 1, 7, i, i, i, 'task.post_create', 'event', 1, 'delivered', '', mod(i, 1000), now(), now() - (%[1]d - i) * interval '24 hours' / %[1]d FROM generate_series(1, %[1]d) i`,
		`INSERT INTO sametick.webhook_queue (id, org_id, shard, endpoint_id, event_id, position, event_type, due_at, created_at)
			SELECT 10000000 + i, 1, sametick.shard_of(1), 7, i, i, 'task.post_create', now(), now() FROM generate_series(1, %[1]d) i`,
		`ANALYZE sametick.webhook_attempts`, `ANALYZE sametick.webhook_queue`} {
		if strings.Contains(sql, "%") {
			sql = fmt.Sprintf(sql, n)
		}
		_, err := admin.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	r := &recorder{}
	pool, err := pg.Open(t.Context(), db.URLAs(t, workertest.Role), pg.Options{Configure: func(c *pgxpool.Config) { c.ConnConfig.Tracer = r }})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	s := store.New(pool)
	endpoint, event, middle := int64(7), int64(n/2), time.Now().Add(-12*time.Hour)
	for name, c := range map[string]struct {
		read func() error
		most float64
	}{
		"a page of attempts": {func() error {
			_, _, err := s.Attempts(t.Context(), 1, endpoints.Filter{EndpointID: &endpoint, Limit: 25})
			return err
		}, 100},
		"a page of none": {func() error {
			_, _, err := s.Attempts(t.Context(), 1, endpoints.Filter{EndpointID: &endpoint, Status: "failed", Limit: 25})
			return err
		}, 21_000},
		"of half a day ago": {func() error {
			_, _, err := s.Attempts(t.Context(), 1, endpoints.Filter{EndpointID: &endpoint, To: &middle, Limit: 25})
			return err
		}, 21_000},
		"of one event": {func() error {
			_, _, err := s.Attempts(t.Context(), 1, endpoints.Filter{EventID: &event, Limit: 25})
			return err
		}, 10},
		"deliveries of one event": {func() error {
			_, _, err := s.Deliveries(t.Context(), 1, endpoints.Filter{EventID: &event, Limit: 25})
			return err
		}, 20},
		"deliveries that failed": {func() error {
			_, _, err := s.Deliveries(t.Context(), 1, endpoints.Filter{EndpointID: &endpoint, Status: "failed", Limit: 25})
			return err
		}, 21_000},
		"one attempt":  {func() error { _, err := s.Attempt(t.Context(), 1, event); return err }, 2},
		"one delivery": {func() error { _, err := s.Delivery(t.Context(), 1, event); return err }, 2},
		"statistics":   {func() error { _, err := s.Stats(t.Context(), 1, 7, time.Now().Add(-48*time.Hour)); return err }, 200_010},
		"the newest":   {func() error { _, err := s.NewestAttempt(t.Context(), 1, 7); return err }, 10},
		// The endpoint's queue has no index in this order: what waits for one endpoint is sorted.
		"what waits": {func() error {
			_, _, err := s.Deliveries(t.Context(), 1, endpoints.Filter{EndpointID: &endpoint, Status: "pending", Limit: 25})
			return err
		}, float64(n) + 1},
	} {
		r.seen = nil
		require.NoError(t, c.read(), name)
		sent := r.seen
		require.NotEmpty(t, sent, name)
		var rows float64
		var took time.Duration
		for _, st := range sent {
			one, time := looked(t, pool, st)
			rows, took = rows+one, took+time
		}
		t.Logf("%s: %.0f rows in %s", name, rows, took)
		require.LessOrEqual(t, rows, c.most, name)
	}
}
