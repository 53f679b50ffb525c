package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/sametick/sametick/deploy/bench/internal/report"
)

const (
	limit    = 25
	deepPage = 1000
	target   = 50 // ms, of p95
)

// filter is one way to ask, and the condition of a plain SELECT for the same rows.
type filter struct {
	name  string
	query url.Values
	where string
	args  []any
}

func (b *bench) filters() []filter {
	from, to := b.history.start.AddDate(0, 0, 20).Add(7*time.Hour), b.history.start.AddDate(0, 0, 75).Add(5*time.Hour)
	day := func(t time.Time) string { return t.Format(time.RFC3339) }
	return []filter{
		{name: "no filter"},
		{"aggregate_type", url.Values{"aggregate_type": {"task"}}, " AND aggregate_type = $2", []any{"task"}},
		{"event_type", url.Values{"event_type": {"task.post_create"}}, " AND event_type = $2", []any{"task.post_create"}},
		{"event_type *.post_create", url.Values{"event_type": {"*.post_create"}}, " AND event_type LIKE $2", []any{"%.post_create"}},
		{"actor_id", url.Values{"actor_id": {"7"}}, " AND actor_id = $2", []any{7}},
		{"from, to", url.Values{"from": {day(from)}, "to": {day(to)}}, " AND occurred_at > $2 AND occurred_at < $3", []any{from, to}},
		{"from, to, event_type", url.Values{"from": {day(from)}, "to": {day(to)}, "event_type": {"task.post_create"}},
			" AND occurred_at > $2 AND occurred_at < $3 AND event_type = $4", []any{from, to, "task.post_create"}},
		{"from, to, actor_id, two types", url.Values{"from": {day(from)}, "to": {day(to)}, "actor_id": {"7"}, "aggregate_type": {"task", "team"}},
			" AND occurred_at > $2 AND occurred_at < $3 AND actor_id = $4 AND aggregate_type IN ('task', 'team')", []any{from, to, 7}},
	}
}

// answer is what a page looks like.
type answer struct {
	Data  []struct{ ID int64 }
	Total int64
	Next  *string `json:"next_cursor"`
}

func (b *bench) measure(ctx context.Context) error {
	for _, org := range []int64{1, 77} {
		token, err := b.tokens.For(org)
		if err != nil {
			return err
		}
		for _, f := range b.filters() {
			if err := b.cells(ctx, org, token, f); err != nil {
				return fmt.Errorf("organisation %d, %s: %w", org, f.name, err)
			}
		}
	}
	return b.gateway.Failure()
}

// cells measures one filter: the first page, page 1,000 (the last when there are fewer), a page by cursor.
func (b *bench) cells(ctx context.Context, org int64, token string, f filter) error {
	first, err := b.ask(ctx, "/api/events", token, f.query, "1", "")
	if err != nil {
		return err
	}
	if err := b.checkTotal(ctx, org, f, first.Total); err != nil {
		return err
	}
	deep := min(deepPage, max(1, int((first.Total+limit-1)/limit)))
	page := fmt.Sprint(deep)
	cursor := ""
	if first.Next != nil {
		cursor = *first.Next
	}
	leg := fmt.Sprintf("organisation of %s: %s (%d match)", map[bool]string{true: "half of all", false: "a small share"}[org == 1], f.name, first.Total)
	for _, c := range []struct {
		name         string
		page, cursor string
	}{{"first page", "1", ""}, {"page " + page, page, ""}, {"next page by cursor", "", cursor}} {
		if c.page == "" && cursor == "" {
			continue
		}
		err := b.cell(leg, c.name, func() error {
			_, err := b.ask(ctx, "/api/events", token, f.query, c.page, c.cursor)
			return err
		}, true)
		if err != nil {
			return err
		}
	}
	return b.cell(leg, "plain SELECT, page "+page, func() error { return b.plain(ctx, org, f, deep) }, false)
}

func (b *bench) cell(leg, name string, ask func() error, ours bool) error {
	ms := make([]float64, 0, b.asks)
	for range b.asks {
		began := time.Now()
		if err := ask(); err != nil {
			return err
		}
		ms = append(ms, float64(time.Since(began))/float64(time.Millisecond))
	}
	p50, p95 := report.Quantile(ms, 0.5), report.Quantile(ms, 0.95)
	_, _ = fmt.Fprintf(b.log, "  %s, %s: p50 %.2f ms, p95 %.2f ms\n", leg, name, p50, p95)
	b.report.Add(leg, name+", p50", "ms", p50)
	b.report.Add(leg, name+", p95", "ms", p95)
	if ours {
		b.report.AtMost(leg+", "+name+": p95 ≤ 50 ms", p95, target)
	}
	return nil
}

func (b *bench) ask(ctx context.Context, path, token string, query url.Values, page, cursor string) (a answer, err error) {
	q := url.Values{"limit": {fmt.Sprint(limit)}}
	for name, values := range query {
		q[name] = values
	}
	if page != "" {
		q.Set("page", page)
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.gateway.HTTP+path+"?"+q.Encode(), nil)
	if err != nil {
		return a, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return a, err
	}
	if res.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s: %s", res.Status, text)
	}
	return a, json.Unmarshal(text, &a)
}

// plain is what a page alone costs, without a total, over the same connection as everything of the bench.
func (b *bench) plain(ctx context.Context, org int64, f filter, page int) error {
	rows, err := b.history.pool.Query(ctx, fmt.Sprintf(`SELECT id, org_id, aggregate_type, aggregate_id, event_type, payload::text, occurred_at
  FROM sametick.events WHERE org_id = $1%s ORDER BY id DESC LIMIT %d OFFSET %d`, f.where, limit, (page-1)*limit), append([]any{org}, f.args...)...)
	if err != nil {
		return err
	}
	for rows.Next() {
		_ = rows.RawValues()
	}
	return rows.Err()
}

// checkTotal counts the matches one by one, and notes what that takes.
func (b *bench) checkTotal(ctx context.Context, org int64, f filter, total int64) error {
	began := time.Now()
	var n int64
	err := b.history.pool.QueryRow(ctx, `SELECT count(*) FROM sametick.events WHERE org_id = $1`+f.where, append([]any{org}, f.args...)...).Scan(&n)
	if err == nil && n != total {
		err = fmt.Errorf("the total is %d, and there are %d", total, n)
	}
	b.report.Notes = append(b.report.Notes, fmt.Sprintf("organisation %d, %s: a plain count(*) of %d took %.1f ms", org, f.name, n, float64(time.Since(began))/float64(time.Millisecond)))
	return err
}
