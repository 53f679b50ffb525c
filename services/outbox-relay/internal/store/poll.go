package store

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

const (
	// The first row is always there and tells the snapshot of all of them. The upper bound keeps the scan
	// off rows of transactions that began after the snapshot. A transaction of xip is looked at only once it
	// has ended: else each poll would read all that a long one has written so far. Its rows are asked for by a
	// range and in the order of (txid, id), which only events_txid_idx gives: for an equality and the order of
	// id the planner took the primary key when one transaction had written most of a partition, and
	// filtered all of it. Seen with EXPLAIN (ANALYZE, BUFFERS), PostgreSQL 15: 5,001 of a backlog of 1M take 345 buffers and a page in its
	// middle 329; a poll beside 200,000 uncommitted rows takes 14.
	differenceSQL = `
SELECT pg_current_snapshot()::text, NULL::bigint, NULL::smallint, NULL::bigint, NULL::text, NULL::bigint, NULL::text, NULL::jsonb, NULL::text, NULL::timestamptz
 UNION ALL
(SELECT NULL, d.* FROM (
  (SELECT ` + columns + ` FROM sametick.events e
    WHERE e.txid >= $1::text::xid8 AND e.txid < pg_snapshot_xmax(pg_current_snapshot()) AND e.id > $2
    ORDER BY e.txid LIMIT $5)
  UNION ALL
  (SELECT ` + columns + `
     FROM (SELECT x FROM unnest($3::text[]::xid8[]) x WHERE pg_visible_in_snapshot(x, pg_current_snapshot())) ended
    CROSS JOIN LATERAL (SELECT * FROM sametick.events WHERE txid BETWEEN ended.x AND ended.x AND id > $4 ORDER BY txid, id LIMIT $5) e LIMIT $5)
) d LIMIT $5)`

	// A page, while no transaction of xip has rows in it.
	pageSQL = `
SELECT NULL::text, ` + columns + ` FROM sametick.events e
 WHERE e.id > $2 AND e.txid >= $1::text::xid8 AND pg_visible_in_snapshot(e.txid, $3::text::pg_snapshot)
 ORDER BY e.id LIMIT $4`

	// A page with the rows of transactions of xip that have ended in the paging snapshot ($5).
	latePageSQL = `
SELECT NULL::text, e.* FROM (
  (SELECT ` + columns + ` FROM sametick.events e
    WHERE e.id > $2 AND e.txid >= $1::text::xid8 AND pg_visible_in_snapshot(e.txid, $3::text::pg_snapshot)
    ORDER BY e.id LIMIT $4)
  UNION ALL
  (SELECT ` + columns + ` FROM unnest($5::text[]::xid8[]) ended(x)
    CROSS JOIN LATERAL (SELECT * FROM sametick.events WHERE txid BETWEEN ended.x AND ended.x AND id > $6 ORDER BY txid, id LIMIT $4) e)
) e ORDER BY e.id LIMIT $4`

	// Only right after the ledger's newest row: the key alone would let a relay that slept through the
	// thinning of the ledger (see Upkeep) take an old number. Of two at once, one gets a unique violation.
	claimSQL = `
WITH claim AS (
  INSERT INTO sametick.relay_batches (batch, snapshot, paging, page_after, max_id, base_id, positions, system_identifier, timeline)
  SELECT $1, $2::text::pg_snapshot, $3::text::pg_snapshot, $4::bigint, $5::bigint, $6::bigint, $7::bigint[], $8::bigint, $9::integer
   WHERE $1 = 1 + coalesce((SELECT max(batch) FROM sametick.relay_batches), 0)
  RETURNING claim_xid
), placed AS (
  INSERT INTO sametick.positions (shard, position, event_id)
  SELECT p.* FROM claim, unnest($10::smallint[], $11::bigint[], $12::bigint[]) p
)
SELECT claim_xid::text::bigint FROM claim`
)

// maxPollBytes is where an answer is cut: 5,000 events may be 10 GB, and several batches are in memory.
const maxPollBytes = 32 << 20

// Poll answers a query of the sequencer, in one statement and hence in one snapshot.
func (s *Session) Poll(q sequence.Query) (sequence.Answer, error) {
	var a sequence.Answer
	ctx, err := s.statement()
	if err != nil {
		return a, err
	}
	sql, args := pollStatement(q)
	rows, err := s.conn.Query(ctx, sql, append([]any{formats()}, args...)...)
	if err != nil {
		return a, pg.Translate(err)
	}
	defer rows.Close()
	for bytes := 0; rows.Next(); {
		raw := rows.RawValues()
		if raw[0] == nil {
			e := s.decode.event(raw[1:])
			if bytes += len(e.Envelope); bytes > maxPollBytes && len(a.Events) > 0 {
				a.Cut = true // closing reads the rest, and lets go of it
				break
			}
			a.Events = append(a.Events, e)
			continue
		}
		if a.Snapshot, err = sequence.ParseSnapshot(string(raw[0])); err != nil {
			return a, err
		}
	}
	rows.Close()
	return a, pg.Translate(rows.Err())
}

func pollStatement(q sequence.Query) (sql string, args []any) {
	since := strconv.FormatUint(q.Since.Xmax, 10)
	if q.Paging == nil {
		return differenceSQL, []any{since, q.Start, xids(q.Since.Xip, nil), q.Floor, q.Limit}
	}
	ended := xids(q.Since.Xip, q.Paging)
	if len(ended) == 0 {
		return pageSQL, []any{since, q.Start, q.Paging.String(), q.Limit}
	}
	return latePageSQL, []any{since, q.Start, q.Paging.String(), q.Limit, ended, q.Floor}
}

// xids gives the text of transactions, of those only that have ended in `in` when it is given.
func xids(list []uint64, in *sequence.Snapshot) []string {
	out := make([]string, 0, len(list))
	for _, x := range list {
		if in == nil || in.Ended(x) {
			out = append(out, strconv.FormatUint(x, 10))
		}
	}
	return out
}

// Claim commits a batch and gives the id of the transaction that did. Its error has
// ReasonClaimLost when another relay was first. After any other error the outcome is unknown: end the
// session and load the cursor in a new one.
func (s *Session) Claim(b *sequence.Batch) (uint64, error) {
	ctx, err := s.statement()
	if err != nil {
		return 0, err
	}
	c := &b.Cursor
	var (
		paging    *string
		pageAfter *int64
		xid       uint64
	)
	if c.Paging != nil {
		text := c.Paging.String()
		paging, pageAfter = &text, &c.PageAfter
	}
	shards, positions, ids := make([]int16, len(b.Events)), make([]int64, len(b.Events)), make([]int64, len(b.Events))
	for i := range b.Events {
		e := &b.Events[i]
		shards[i], positions[i], ids[i] = int16(e.Shard), e.Position, e.ID
	}
	err = s.conn.QueryRow(ctx, claimSQL, c.Batch, c.Snapshot.String(), paging, pageAfter, c.MaxID, c.BaseID, c.Positions[:],
		c.Identity.SystemIdentifier, c.Identity.Timeline, shards, positions, ids).Scan(&xid)
	if pg.IsUnique(err, "") || errors.Is(err, pgx.ErrNoRows) {
		return 0, errs.New(errs.Aborted, ReasonClaimLost, fmt.Sprintf("another relay has claimed batch %d", c.Batch)).WithCause(err)
	}
	return xid, pg.Translate(err)
}
