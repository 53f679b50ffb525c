package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
	"github.com/sametick/sametick/services/webhook-worker/internal/workertest"
)

// queued gives a store, maybe as behind a pooling proxy, with n deliveries queued, and the superuser's pool.
func queued(t *testing.T, n int, pooled bool) (*store.Worker, *pgxpool.Pool, []*delivery.Delivery) {
	t.Helper()
	db := workertest.Database(t)
	pool, err := pg.Open(t.Context(), db.URLAs(t, workertest.Role), pg.Options{Pooled: pooled})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	w := store.New(pool).Worker(nil)
	list := make([]*delivery.Delivery, n)
	now := time.Now()
	for i := range list {
		list[i] = &delivery.Delivery{OrgID: 1, EndpointID: 1, Shard: 3, EventID: int64(i + 1), Position: int64(i + 1), EventType: "task.post_create",
			Trigger: delivery.ByEvent, Due: now, ScheduledAt: now}
	}
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		require.NoError(t, w.EveryOrg(t.Context(), tx))
		return w.Schedule(t.Context(), tx, 3, now, list)
	}))
	return w, db.Pool(t), list
}

func retrying(d *delivery.Delivery, began time.Time) delivery.Outcome {
	return delivery.Outcome{Delivery: *d, Kind: delivery.Retrying, Attempt: d.Attempts + 1, Next: began.Add(time.Minute),
		Result: delivery.Result{Cause: delivery.CauseTimeout, Began: began}}
}

func rows(t *testing.T, pool *pgxpool.Pool, sql string) (list []string) {
	t.Helper()
	got, err := pool.Query(t.Context(), sql)
	require.NoError(t, err)
	list, err = pgx.CollectRows(got, pgx.RowTo[string])
	require.NoError(t, err)
	return list
}

// What is saved twice is there once; what another holder has tried since is not taken back; what is gone meanwhile has
// ended with that.
func TestSaveIsFenced(t *testing.T) {
	t.Parallel()
	for name, pooled := range map[string]bool{"direct": false, "behind a pooling proxy": true} {
		t.Run(name, func(t *testing.T) { saveIsFenced(t, pooled) })
	}
}

func saveIsFenced(t *testing.T, pooled bool) {
	t.Parallel()
	w, admin, list := queued(t, 4, pooled)
	for i := range list[1:] {
		require.Greater(t, list[i+1].ID, list[i].ID)
	}
	began := time.Now()
	b := &delivery.Batch{Outcomes: []delivery.Outcome{retrying(list[0], began), retrying(list[1], began), retrying(list[2], began),
		{Delivery: *list[3], Kind: delivery.Delivered, Attempt: 1, Result: delivery.Result{Status: 204, Began: began}}}}
	_, err := admin.Exec(t.Context(), "UPDATE sametick.webhook_queue SET attempts = 2, due_at = 'infinity' WHERE id = $1", list[1].ID)
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "DELETE FROM sametick.webhook_queue WHERE id = $1", list[2].ID)
	require.NoError(t, err)
	refused, err := w.Save(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, []int64{list[1].ID, list[2].ID}, refused)
	_, err = w.Save(t.Context(), b)
	require.Error(t, err, "nobody said that it may be there")
	b.Again = true
	refused, err = w.Save(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, []int64{list[0].ID, list[1].ID, list[2].ID}, refused)
	id := func(i int) string { return fmt.Sprint(list[i].ID) }
	require.Equal(t, []string{id(0) + " 1 timeout", id(1) + " 2 "}, rows(t, admin, "SELECT id || ' ' || attempts || ' ' || cause FROM sametick.webhook_queue ORDER BY id"))
	require.Equal(t, []string{id(0) + " retrying", id(1) + " retrying", id(2) + " cancelled", id(3) + " delivered"},
		rows(t, admin, "SELECT delivery_id || ' ' || outcome FROM sametick.webhook_attempts ORDER BY delivery_id"))
}

// A window has what is due, up to its limit, and says when the next is; an ordered one goes by id.
func TestWindow(t *testing.T) {
	t.Parallel()
	w, admin, list := queued(t, 6, true)
	for i, s := range []int{50, -10, 20, -30, -20, 3600} { // seconds from now
		_, err := admin.Exec(t.Context(), "UPDATE sametick.webhook_queue SET due_at = now() + make_interval(secs => $2) WHERE id = $1", list[i].ID, s)
		require.NoError(t, err)
	}
	want := delivery.Want{Shard: 3, OrgID: 1, EndpointID: 1, Until: time.Now(), Limit: 10}
	ids := func(got delivery.Window) (ids []int64) {
		for _, d := range got.Deliveries {
			ids = append(ids, d.EventID)
		}
		return ids
	}
	got, err := w.Window(t.Context(), want)
	require.NoError(t, err)
	require.Equal(t, []int64{4, 5, 2}, ids(got))
	require.InDelta(t, 20, time.Until(got.Next).Seconds(), 5)
	want.Limit, want.Except = 1, []int64{list[3].ID}
	got, err = w.Window(t.Context(), want)
	require.NoError(t, err)
	require.Equal(t, []int64{5}, ids(got))
	require.InDelta(t, -10, time.Until(got.Next).Seconds(), 5)
	want.Ordered, want.Limit = true, 3
	got, err = w.Window(t.Context(), want)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 3}, ids(got))
	require.False(t, got.Next.IsZero())
	want.Ordered, want.Until, want.Limit = false, time.Now().Add(2*time.Hour), 10
	got, err = w.Window(t.Context(), want)
	require.NoError(t, err)
	require.Len(t, got.Deliveries, 5)
	require.True(t, got.Next.IsZero())
	waiting, err := w.Waiting(t.Context(), 3)
	require.NoError(t, err)
	require.Len(t, waiting, 1)
	require.EqualValues(t, 1, waiting[0].EndpointID)
	require.InDelta(t, -30, time.Until(waiting[0].Due).Seconds(), 5)
}

// An open endpoint's deliveries are nobody's to cancel.
func TestCancelNeedsAClosedEndpoint(t *testing.T) {
	t.Parallel()
	w, admin, list := queued(t, 5, true)
	_, err := admin.Exec(t.Context(), "INSERT INTO sametick.webhook_endpoints (org_id, id, url) VALUES (1, 1, 'https://a.example')")
	require.NoError(t, err)
	want := delivery.Want{Shard: 3, OrgID: 1, EndpointID: 1, Limit: 3, Except: []int64{list[0].ID}}
	n, err := w.Cancel(t.Context(), want)
	require.NoError(t, err)
	require.Zero(t, n)
	_, err = admin.Exec(t.Context(), "UPDATE sametick.webhook_endpoints SET archived_at = now()")
	require.NoError(t, err)
	for _, left := range []int{3, 1, 0} {
		n, err := w.Cancel(t.Context(), want)
		require.NoError(t, err)
		require.Equal(t, left, n)
	}
	require.Equal(t, []string{fmt.Sprint(list[0].ID)}, rows(t, admin, "SELECT id::text FROM sametick.webhook_queue"))
	require.Equal(t, []string{"archived"}, rows(t, admin, "SELECT DISTINCT cause FROM sametick.webhook_attempts"))
}
