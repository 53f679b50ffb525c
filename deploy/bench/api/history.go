package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

const (
	orgs = 200
	// days is how long the history is.
	days = 90
	// chunk is how many events one statement inserts.
	chunk = 20_000
)

// history is the loaded database.
type history struct {
	pool       *pgxpool.Pool
	start, end time.Time
}

// insert spreads events evenly: half of them over organisation 1, the others over the rest; ten types of
// aggregates with four phases, fifty actors an organisation, two events an entity.
const insert = `
INSERT INTO sametick.events (org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, occurred_at)
SELECT org, sametick.shard_of(org), typ, entity, 1 + i % 2, typ || '.' || phase,
       jsonb_build_object('org_id', org, 'actor_id', 1 + hash / 40 % 50, 'record_id', entity, 'record_type', typ,
         'record_name', 'Quarterly review of entity ' || entity, 'action', phase, 'timestamp', '2026-04-12T14:30:00.000Z'),
       $4::timestamptz + ($5::float8 * i / $3::float8) * interval '1 second'
  FROM generate_series($1::bigint, $2::bigint) i,
       LATERAL (SELECT (i * 2654435761) % 1000003 AS hash, 1 + i / 2 AS entity) h,
       LATERAL (SELECT CASE WHEN i % 2 = 0 THEN 1 ELSE 2 + hash % 199 END AS org,
         (ARRAY['task','task','task','employee','step','workflow','survey_response','feedback','kudos','team'])[1 + hash % 10] AS typ,
         (ARRAY['pre_create','post_create','pre_update','post_update'])[1 + hash / 10 % 4] AS phase) v`

// load fills the table without its indexes, which are then made as the migrations make them.
func load(ctx context.Context, url string, n int, log io.Writer) (*history, error) {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, err
	}
	h := &history{pool: pool, end: time.Now().UTC().Truncate(time.Second)}
	h.start = h.end.AddDate(0, 0, -days)
	rows, err := pool.Query(ctx, `SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'sametick' AND tablename = 'events' AND indexname <> 'events_pkey'`)
	if err != nil {
		return nil, err
	}
	var name, definition string
	var definitions []string
	if _, err = pgx.ForEachRow(rows, []any{&name, &definition}, func() error {
		// The parent's own definition is of it alone, and would leave the partitions without.
		definitions = append(definitions, strings.Replace(definition, " ON ONLY ", " ON ", 1))
		return nil
	}); err != nil {
		return nil, err
	}
	drop := `DO $$ DECLARE i text; BEGIN FOR i IN SELECT indexname FROM pg_indexes WHERE schemaname = 'sametick' AND tablename = 'events' AND indexname <> 'events_pkey'
LOOP EXECUTE 'DROP INDEX sametick.' || i; END LOOP; END $$`
	_, _ = fmt.Fprintf(log, "writing %d events\n", n)
	if _, err := pool.Exec(ctx, drop); err != nil {
		return nil, err
	}
	if err := h.fill(ctx, n); err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintln(log, "making indexes, counting blocks")
	for _, sql := range append(definitions, `VACUUM (ANALYZE) sametick.events`,
		`INSERT INTO sametick.relay_batches (batch, snapshot, max_id, positions, system_identifier, timeline)
SELECT 1, pg_current_snapshot(), max(id), array_fill(0::bigint, '{16}'), 1, 1 FROM sametick.events`) {
		if _, err := pool.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("%s: %w", sql, err)
		}
	}
	began := time.Now()
	for blocks := 0; ; blocks++ {
		var counted bool
		if err := pool.QueryRow(ctx, `SELECT sametick.count_next_block()`).Scan(&counted); err != nil {
			return nil, err
		}
		if !counted {
			_, _ = fmt.Fprintf(log, "counted %d blocks of 50,000 in %s\n", blocks, time.Since(began).Round(time.Millisecond))
			break
		}
	}
	_, err = pool.Exec(ctx, `VACUUM (ANALYZE) sametick.event_counts, sametick.event_actor_counts, sametick.event_times`)
	return h, err
}

func (h *history) fill(ctx context.Context, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for from := 0; from < n; from += chunk {
		group.Go(func() error {
			_, err := h.pool.Exec(ctx, insert, from, min(from+chunk, n)-1, n, h.start, h.end.Sub(h.start).Seconds())
			return err
		})
	}
	return group.Wait()
}
