// Package auditdb reads audit entries and the sealed log out of Postgres: the one reading that the sealer and who
// verifies share, and the check of a whole log. What is right and wrong is pkg/auditlog's to say.
package auditdb

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/pkg/pg"
)

// Columns of sametick.audit_entries, as e, for ScanEntry. The table's own and built-in functions alone: a
// function of ours would be the attacker's to replace.
const Columns = `e.id, e.org_id, e.actor_id, e.action, e.outcome, e.aggregate_type, e.aggregate_id, to_json(e.event_ids)::text, e.changes::text,
  e.request_id, abbrev(e.ip), e.user_agent, e.occurred_at`

// entry holds a row of Columns, all NULL where an outer join found none.
type entry struct {
	id, org, aggregate   *int64
	action, outcome, typ *string
	events, changes      *string
	at                   pgtype.Timestamptz
	auditlog.Entry
}

func (e *entry) targets() []any {
	return []any{&e.id, &e.org, &e.ActorID, &e.action, &e.outcome, &e.typ, &e.aggregate, &e.events, &e.changes,
		&e.RequestID, &e.IP, &e.UserAgent, &e.at}
}

func (e *entry) whole() auditlog.Entry {
	out := e.Entry
	out.ID, out.OrgID, out.AggregateID = value(e.id), value(e.org), value(e.aggregate)
	out.Action, out.Outcome, out.AggregateType = value(e.action), value(e.outcome), value(e.typ)
	out.EventIDs, out.Changes = []byte(value(e.events)), []byte(value(e.changes))
	if e.events == nil {
		out.EventIDs = nil
	}
	if e.changes == nil {
		out.Changes = nil
	}
	out.OccurredAt = auditlog.FormatTime(e.at.Time)
	if e.at.InfinityModifier != pgtype.Finite {
		out.OccurredAt = e.at.InfinityModifier.String()
	}
	return out
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// ScanEntry reads one row of Columns.
func ScanEntry(row pgx.Row) (auditlog.Entry, error) {
	var e entry
	err := row.Scan(e.targets()...)
	return e.whole(), err
}

// fetch is how many rows come at a time: an entry may have 4 MiB.
const fetch = 200

const (
	headsSQL = `
DECLARE heads CURSOR FOR
SELECT seal, size, snapshot::text, coalesce(paging::text, ''), page_after, max_id, claim_xid::text, system_identifier, note
  FROM sametick.audit_heads ORDER BY size, seal`

	// The newest head that was claimed before the entry's transaction began: all that it had sealed has smaller ids.
	leavesSQL = `
DECLARE leaves CURSOR FOR
SELECT l.leaf, l.entry_id, l.salt, l.hashes,
  coalesce((SELECT h.max_id FROM sametick.audit_heads h WHERE h.claim_xid <= e.txid ORDER BY h.claim_xid DESC LIMIT 1) >= e.id, false), ` + Columns + `
  FROM sametick.audit_leaves l LEFT JOIN sametick.audit_entries e ON e.id = l.entry_id ORDER BY l.leaf`

	// Entries without a leaf that the newest head's cursor has passed, or whose id is older than their transaction.
	unsealedSQL = `
DECLARE unsealed CURSOR FOR
WITH head AS (
  SELECT snapshot, paging, page_after FROM sametick.audit_heads ORDER BY seal DESC LIMIT 1
), lone AS (
  SELECT e.id,
    (e.txid IS NULL AND pg_snapshot_xmax(h.snapshot) > '3'::xid8) OR pg_visible_in_snapshot(e.txid, h.snapshot)
      OR (h.paging IS NOT NULL AND e.id <= h.page_after AND (e.txid IS NULL OR pg_visible_in_snapshot(e.txid, h.paging))) AS passed,
    (SELECT b.max_id FROM sametick.audit_heads b WHERE b.claim_xid <= e.txid ORDER BY b.claim_xid DESC LIMIT 1) >= e.id AS forged
    FROM head h, sametick.audit_entries e
   WHERE NOT EXISTS (SELECT FROM sametick.audit_leaves l WHERE l.entry_id = e.id)
)
SELECT id, coalesce(forged, false) AND NOT coalesce(passed, false) FROM lone WHERE passed OR forged ORDER BY id`

	waitingSQL = `SELECT count(*) FROM sametick.audit_entries e WHERE NOT EXISTS (SELECT FROM sametick.audit_leaves l WHERE l.entry_id = e.id)`
)

// Result is a Report, and how many entries are not sealed, rightly or not.
type Result struct {
	auditlog.Report
	Unsealed int64
}

// Verify checks a whole log in one snapshot of the database, in memory that does not grow with it. saved is a head
// that was kept elsewhere, or nil. Its error says that checking failed, not that something was found.
func Verify(ctx context.Context, conn *pgx.Conn, v *auditlog.Verifier, saved *auditlog.Head) (r Result, err error) {
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		for _, sql := range []string{"SET LOCAL cursor_tuple_fraction = 1", headsSQL, leavesSQL, unsealedSQL} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		w := &walk{tx: tx, checker: auditlog.NewChecker(v, saved)}
		if err := w.run(ctx); err != nil {
			return err
		}
		r.Report = w.checker.Finish()
		return tx.QueryRow(ctx, waitingSQL).Scan(&r.Unsealed)
	})
	return r, pg.Translate(err)
}

// walk feeds a checker from the three cursors.
type walk struct {
	tx      pgx.Tx
	checker *auditlog.Checker
	heads   []auditlog.HeadRow // fetched and not checked yet
	ended   bool
}

func (w *walk) run(ctx context.Context) error {
	for {
		leaves, err := rows(ctx, w.tx, "leaves", scanLeaf)
		if err != nil {
			return err
		}
		for _, leaf := range leaves {
			if err := w.upTo(ctx, leaf.Leaf); err != nil {
				return err
			}
			if err := w.checker.Leaf(leaf); err != nil {
				return err
			}
		}
		if len(leaves) < fetch {
			break
		}
	}
	if err := w.upTo(ctx, 1<<62); err != nil {
		return err
	}
	for {
		list, err := rows(ctx, w.tx, "unsealed", func(row pgx.CollectableRow) (u unsealed, err error) {
			err = row.Scan(&u.id, &u.forged)
			return u, err
		})
		if err != nil {
			return err
		}
		for _, u := range list {
			w.checker.Unsealed(u.id, u.forged)
		}
		if len(list) < fetch {
			return nil
		}
	}
}

type unsealed struct {
	id     int64
	forged bool
}

// upTo checks the heads of at most so many leaves.
func (w *walk) upTo(ctx context.Context, size int64) error {
	for {
		if len(w.heads) == 0 && !w.ended {
			list, err := rows(ctx, w.tx, "heads", scanHead)
			if err != nil {
				return err
			}
			w.heads, w.ended = list, len(list) < fetch
		}
		if len(w.heads) == 0 || w.heads[0].Size > size {
			return nil
		}
		if err := w.checker.Head(w.heads[0]); err != nil {
			return err
		}
		w.heads = w.heads[1:]
	}
}

func rows[T any](ctx context.Context, tx pgx.Tx, cursor string, scan pgx.RowToFunc[T]) ([]T, error) {
	r, err := tx.Query(ctx, fmt.Sprintf("FETCH %d FROM %s", fetch, cursor))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(r, scan)
}

func scanLeaf(row pgx.CollectableRow) (auditlog.LeafRow, error) {
	var (
		l auditlog.LeafRow
		e entry
	)
	err := row.Scan(append([]any{&l.Leaf, &l.EntryID, &l.Salt, &l.Hashes, &l.Forged}, e.targets()...)...)
	if e.id != nil {
		whole := e.whole()
		l.Entry = &whole
	}
	return l, err
}

func scanHead(row pgx.CollectableRow) (h auditlog.HeadRow, err error) {
	var (
		snapshot, paging, claim  string
		pageAfter, maxID, system int64
	)
	err = row.Scan(&h.Seal, &h.Size, &snapshot, &paging, &pageAfter, &maxID, &claim, &system, &h.Note)
	h.Cursor = auditlog.Cursor(h.Seal, snapshot, paging, pageAfter, maxID, claim, system)
	return h, err
}
