package store_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/api-gateway/internal/audit"
	"github.com/sametick/sametick/services/api-gateway/internal/events"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
)

// writeEntries adds n entries of three organisations with ids after `from`, far apart, and gives the last id. Times follow ids
// as in write.
func (w *world) writeEntries(from int64, n int) int64 {
	b := &pgx.Batch{}
	for i := range n {
		from += 1 + w.r.Int64N(4000)
		at := epoch.Add(time.Duration(from)*time.Second + time.Duration(w.r.IntN(3600))*time.Second)
		if i%97 == 0 {
			at = at.Add(-24 * time.Hour)
		}
		var actor *int64
		if a := w.r.Int64N(4); a > 0 {
			actor = &a
		}
		b.Queue(`INSERT INTO sametick.audit_entries (id, org_id, actor_id, action, outcome, aggregate_type, aggregate_id, event_ids, request_id, occurred_at)
OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, '{1}', $8, $9)`, from, 1+w.r.IntN(3), actor, []string{"create", "update", "login"}[w.r.IntN(3)],
			[]string{"applied", "applied", "failed"}[w.r.IntN(3)], []string{"task", "user"}[w.r.IntN(2)], 1+w.r.IntN(9), []string{"r1", "r2", "r3"}[w.r.IntN(3)], at)
	}
	require.NoError(w.t, w.admin.SendBatch(w.t.Context(), b).Close())
	return from
}

// settleEntries makes a head say that nothing can be added up to an id, and counts until so many blocks are: other databases'
// transactions hold back what is settled.
func (w *world) settleEntries(id int64, blocks int) {
	for done := 0; done < blocks; {
		_, err := w.admin.Exec(w.t.Context(), `INSERT INTO sametick.audit_heads (seal, size, snapshot, page_after, max_id, claim_xid, system_identifier, note)
SELECT 1 + coalesce(max(seal), 0), 0, pg_current_snapshot(), 0, $1, pg_current_xact_id(), 1, '' FROM sametick.audit_heads`, id)
		require.NoError(w.t, err)
		for counted := true; counted; {
			require.NoError(w.t, w.admin.QueryRow(w.t.Context(), `SELECT sametick.count_next_entry_block()`).Scan(&counted))
			if counted {
				done++
			}
		}
		require.NoError(w.t, w.t.Context().Err())
	}
}

func (w *world) auditQuestion() (q audit.Query) {
	some := func(list ...string) string { return list[w.r.IntN(len(list))] }
	q.AggregateType, q.Action, q.Outcome = some("", "", "task", "user"), some("", "", "create", "login", "none"), some("", "", "applied", "failed")
	if w.r.IntN(3) == 0 {
		a := 1 + w.r.Int64N(3)
		q.ActorID = &a
	}
	if w.r.IntN(4) == 0 {
		id := 1 + w.r.Int64N(9)
		q.AggregateID = &id
	}
	if w.r.IntN(5) == 0 {
		q.RequestID = some("r1", "r9")
	}
	if w.r.IntN(2) == 0 {
		from := epoch.Add(time.Duration(w.r.IntN(1_000_000)-10_000) * time.Second)
		q.From = &from
	}
	if w.r.IntN(2) == 0 {
		to := epoch.Add(time.Duration(w.r.IntN(1_100_000)) * time.Second)
		q.To = &to
	}
	return q
}

// checkEntries compares an answer with looking at every entry.
func (w *world) checkEntries(org int64, q audit.Query, before int64, p paging.Page) {
	rows, err := w.admin.Query(w.t.Context(), `SELECT id FROM sametick.audit_entries WHERE org_id = $1 AND ($2 = '' OR aggregate_type = $2)
AND ($3::bigint IS NULL OR aggregate_id = $3) AND ($4::bigint IS NULL OR actor_id = $4) AND ($5 = '' OR action = $5)
AND ($6 = '' OR outcome = $6) AND ($7 = '' OR request_id = $7) AND ($8::timestamptz IS NULL OR occurred_at > $8)
AND ($9::timestamptz IS NULL OR occurred_at < $9) ORDER BY id DESC`, org, q.AggregateType, q.AggregateID, q.ActorID, q.Action, q.Outcome, q.RequestID, q.From, q.To)
	require.NoError(w.t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(w.t, err)
	want := []int64{}
	for _, id := range all {
		if id < before {
			want = append(want, id)
		}
	}
	want = want[min(int(p.Offset), len(want)):]
	page, err := w.store.ListEntries(w.t.Context(), org, q, before, p)
	require.NoError(w.t, err)
	require.EqualValues(w.t, len(all), page.Total, "%+v", q)
	require.Equal(w.t, int64(len(want)) > p.Limit, page.More, "%+v", q)
	got := []int64{}
	for _, e := range page.Entries {
		require.Equal(w.t, org, e.OrgID)
		got = append(got, e.ID)
	}
	require.Equal(w.t, want[:min(int(p.Limit), len(want))], got, "%+v before %d, %+v", q, before, p)
}

// Exact totals and pages, for any question, by page and by cursor: before, while and after blocks are counted.
func TestListEntriesIsExact(t *testing.T) {
	w := newWorld(t, 11)
	last := w.writeEntries(0, 500)
	ask := func() {
		for range 60 {
			p, before := paging.Page{Limit: 1 + w.r.Int64N(30), Offset: w.r.Int64N(100)}, int64(math.MaxInt64)
			if w.r.IntN(2) == 0 {
				p.Offset, before = 0, 1+w.r.Int64N(last)
			}
			w.checkEntries(1+w.r.Int64N(3), w.auditQuestion(), before, p)
		}
	}
	// An actor who is busy in one block, and so counted there.
	_, err := w.admin.Exec(t.Context(), `INSERT INTO sametick.audit_entries (id, org_id, actor_id, action, outcome, aggregate_type, aggregate_id, event_ids, occurred_at)
OVERRIDING SYSTEM VALUE SELECT 150001 + i * 9, 1, 2, CASE i % 2 WHEN 0 THEN 'create' ELSE 'login' END, 'applied', 'task', 1, '{1}', $1::timestamptz + (150001 + i * 9) * interval '1 second'
FROM generate_series(1, 1500) i WHERE NOT EXISTS (SELECT FROM sametick.audit_entries WHERE id = 150001 + i * 9)`, epoch)
	require.NoError(t, err)
	ask()
	w.settleEntries(last/2, int(last/2/events.BlockIDs))
	ask()
	w.settleEntries(last, int(last/events.BlockIDs)-int(last/2/events.BlockIDs))
	last = w.writeEntries(last, 20)
	ask()
	var busy, counted, there int64
	require.NoError(t, w.admin.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM sametick.entry_actor_counts), (SELECT sum(count) FROM sametick.entry_counts),
(SELECT count(*) FROM sametick.audit_entries WHERE id <= (SELECT (max(part) / 10 + 1) * 50000 FROM sametick.entry_times))`).Scan(&busy, &counted, &there))
	require.Positive(t, busy)
	require.Equal(t, there, counted)
}

// No block is counted that an open transaction can add to; when it has ended, its entry counts.
func TestOpenTransactionHoldsEntryCounts(t *testing.T) {
	w := newWorld(t, 12)
	last := w.writeEntries(0, 100)
	tx, err := w.admin.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO sametick.audit_entries (id, org_id, action, outcome, aggregate_type, aggregate_id, event_ids, occurred_at)
OVERRIDING SYSTEM VALUE VALUES (49999, 1, 'create', 'applied', 'task', 1, '{1}', $1)`, epoch)
	require.NoError(t, err)
	_, err = w.admin.Exec(t.Context(), `INSERT INTO sametick.audit_heads (seal, size, snapshot, page_after, max_id, claim_xid, system_identifier, note)
SELECT 1, 0, pg_current_snapshot(), 0, $1, pg_current_xact_id(), 1, ''`, last)
	require.NoError(t, err)
	var counted bool
	require.NoError(t, w.admin.QueryRow(t.Context(), `SELECT sametick.count_next_entry_block()`).Scan(&counted))
	require.False(t, counted)
	require.NoError(t, tx.Commit(t.Context()))
	w.settleEntries(last, int(last/events.BlockIDs))
	w.checkEntries(1, audit.Query{}, math.MaxInt64, paging.Page{Limit: 200})
}

// The control: a block that is counted while it can grow is found by what the tests above compare.
func TestControlEntriesCountedTooEarly(t *testing.T) {
	w := newWorld(t, 13)
	w.writeEntries(0, 60)
	_, err := w.admin.Exec(t.Context(), `SELECT sametick.count_entry_block(0)`)
	require.NoError(t, err)
	_, err = w.admin.Exec(t.Context(), `INSERT INTO sametick.audit_entries (id, org_id, action, outcome, aggregate_type, aggregate_id, event_ids, occurred_at)
OVERRIDING SYSTEM VALUE VALUES (49999, 1, 'create', 'applied', 'task', 1, '{1}', $1)`, epoch)
	require.NoError(t, err)
	page, err := w.store.ListEntries(t.Context(), 1, audit.Query{}, math.MaxInt64, paging.Page{Limit: 10})
	require.NoError(t, err)
	var there int64
	require.NoError(t, w.admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.audit_entries WHERE org_id = 1`).Scan(&there))
	require.NotEqual(t, there, page.Total)
}

// A page of a type, an action or an outcome is found in an index alone: the rows of others are not read. The control is a
// column that no index has.
func TestKindsOfEntriesAreFoundInAnIndexAlone(t *testing.T) {
	w := newWorld(t, 14)
	_, err := w.admin.Exec(t.Context(), `INSERT INTO sametick.audit_entries (org_id, action, outcome, aggregate_type, aggregate_id, event_ids, occurred_at)
SELECT 1 + i % 50, CASE i % 7 WHEN 0 THEN 'archive' ELSE 'update' END, CASE i % 101 WHEN 0 THEN 'failed' ELSE 'applied' END,
       CASE i % 3 WHEN 0 THEN 'team' ELSE 'task' END, i, '{1}', $1 FROM generate_series(1, 30000) i`, epoch)
	require.NoError(t, err)
	_, err = w.admin.Exec(t.Context(), `VACUUM (ANALYZE) sametick.audit_entries`)
	require.NoError(t, err)
	for condition, alone := range map[string]bool{"aggregate_type = 'team'": true, "action = 'archive'": true, "outcome = 'failed'": true, "ip IS NOT NULL": false} {
		rows, err := w.admin.Query(t.Context(), `EXPLAIN SELECT id FROM sametick.audit_entries WHERE org_id = 7 AND id > 10000 AND id <= 30000 AND `+condition+` ORDER BY id DESC LIMIT 51`)
		require.NoError(t, err)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.Equal(t, alone, strings.Contains(strings.Join(plan, "\n"), "Index Only Scan"), "%s: %s", condition, strings.Join(plan, "\n"))
	}
}
