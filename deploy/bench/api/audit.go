package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// auditOrgs are the organisations that the entries belong to.
const auditOrgs = 20

// insertEntries spreads entries as insert does events: half of them are organisation 1's, over 90 days.
const insertEntries = `
INSERT INTO sametick.audit_entries (org_id, actor_id, action, outcome, aggregate_type, aggregate_id, event_ids, changes, request_id, occurred_at)
SELECT CASE WHEN i % 2 = 0 THEN 1 ELSE 2 + hash % 19 END, 1 + hash / 40 % 50,
       (ARRAY['create','update','update','archive'])[1 + hash / 10 % 4], CASE WHEN hash % 100 = 0 THEN 'failed' ELSE 'applied' END,
       (ARRAY['task','task','task','employee','step','workflow','survey_response','feedback','kudos','team'])[1 + hash % 10], 1 + i / 2,
       ARRAY[2 * i, 2 * i + 1], jsonb_build_object('name', jsonb_build_object('before', 'a' || i, 'after', 'b' || i)), 'request-' || i,
       now() - interval '90 days' + (90 * 86400.0 * i / $3) * interval '1 second'
  FROM generate_series($1::bigint, $2::bigint) i, LATERAL (SELECT (i * 2654435761) % 1000003 AS hash) h`

func (b *bench) fillAudit(ctx context.Context, url string, n int) (err error) {
	if b.pool, err = pgxpool.New(ctx, url); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(b.log, "writing %d entries\n", n)
	for from := 1; from <= n; from += 100_000 {
		if _, err := b.pool.Exec(ctx, insertEntries, from, min(from+100_000, n+1)-1, n); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintln(b.log, "counting blocks")
	for _, sql := range []string{`VACUUM (ANALYZE) sametick.audit_entries`,
		`INSERT INTO sametick.audit_heads (seal, size, snapshot, page_after, max_id, claim_xid, system_identifier, note)
SELECT 1, max(id), pg_current_snapshot(), 0, max(id), pg_current_xact_id(), 1, '' FROM sametick.audit_entries`} {
		if _, err := b.pool.Exec(ctx, sql); err != nil {
			return err
		}
	}
	for counted := true; counted; {
		if err := b.pool.QueryRow(ctx, `SELECT sametick.count_next_entry_block()`).Scan(&counted); err != nil {
			return err
		}
	}
	_, err = b.pool.Exec(ctx, `VACUUM (ANALYZE) sametick.entry_counts, sametick.entry_actor_counts, sametick.entry_times`)
	return err
}

// auditList measures the list: the first page, page 1,000 and one by cursor, for every filter.
func (b *bench) auditList(ctx context.Context) error {
	now := time.Now().UTC()
	day := func(ago int) string { return now.AddDate(0, 0, -ago).Format(time.DateOnly) }
	for _, org := range []int64{1, 7} {
		token, err := b.tokens.For(org)
		if err != nil {
			return err
		}
		for _, f := range []filter{
			{name: "no filter"},
			{"aggregate_type", url.Values{"aggregate_type": {"task"}}, " AND aggregate_type = $2", []any{"task"}},
			{"aggregate_type, aggregate_id", url.Values{"aggregate_type": {"task"}, "aggregate_id": {"5000"}}, " AND aggregate_type = $2 AND aggregate_id = $3", []any{"task", 5000}},
			{"actor_id", url.Values{"actor_id": {"7"}}, " AND actor_id = $2", []any{7}},
			{"action", url.Values{"action": {"archive"}}, " AND action = $2", []any{"archive"}},
			{"outcome", url.Values{"outcome": {"failed"}}, " AND outcome = $2", []any{"failed"}},
			{"request_id", url.Values{"request_id": {"request-7000"}}, " AND request_id = $2", []any{"request-7000"}},
			{"from, to", url.Values{"from": {day(70)}, "to": {day(15)}}, " AND occurred_at > $2::date AND occurred_at < $3::date", []any{day(70), day(15)}},
		} {
			if err := b.auditCells(ctx, org, token, f); err != nil {
				return fmt.Errorf("organisation %d, %s: %w", org, f.name, err)
			}
		}
	}
	return b.gateway.Failure()
}

func (b *bench) auditCells(ctx context.Context, org int64, token string, f filter) error {
	const path = "/api/audit"
	first, err := b.ask(ctx, path, token, f.query, "1", "")
	if err != nil {
		return err
	}
	var n int64
	if err := b.pool.QueryRow(ctx, `SELECT count(*) FROM sametick.audit_entries WHERE org_id = $1`+f.where, append([]any{org}, f.args...)...).Scan(&n); err != nil {
		return err
	}
	if n != first.Total {
		return fmt.Errorf("the total is %d, and there are %d", first.Total, n)
	}
	page := fmt.Sprint(min(deepPage, max(1, (n+limit-1)/limit)))
	leg := fmt.Sprintf("audit, organisation of %s: %s (%d match)", map[bool]string{true: "half of all", false: "a small share"}[org == 1], f.name, n)
	pages := map[string][2]string{"first page": {"1", ""}, "page " + page: {page, ""}}
	if first.Next != nil {
		pages["next page by cursor"] = [2]string{"", *first.Next}
	}
	for _, name := range []string{"first page", "page " + page, "next page by cursor"} {
		at, ok := pages[name]
		if !ok {
			continue
		}
		if err := b.cell(leg, name, func() error {
			_, err := b.ask(ctx, path, token, f.query, at[0], at[1])
			return err
		}, true); err != nil {
			return err
		}
	}
	return nil
}
