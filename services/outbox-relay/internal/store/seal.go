package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/pkg/auditlog/auditdb"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// ReasonLogTampered is the reason of an error of sealing: the stored log is not what was signed, and nothing
// is signed on top of it.
const ReasonLogTampered = "AUDIT_LOG_TAMPERED"

// SealStats counts what sealing did, for metrics. Safe for concurrent use.
type SealStats struct {
	// Size is the number of sealed entries, Seals and Lost count heads signed and those that another relay was
	// first with, CaughtUp is when (Unix milliseconds) nothing was left to seal.
	Size, Seals, Lost, CaughtUp atomic.Int64
}

// Sealer seals audit entries into the Merkle log (pkg/auditlog). Its cursor is the snapshot of the newest head:
// what internal/sequence says of events holds here too, and late commits are found by their transaction. It
// keeps nothing in memory: each round is one transaction of one snapshot that reads the newest head,
// takes what is new and writes head and leaves. The head's key lets only one of several relays win.
type Sealer struct {
	Pool   *pgxpool.Pool
	Signer *auditlog.Signer
	// Verifier knows the signer's key, and those that signed before.
	Verifier *auditlog.Verifier
	// Batch is the most entries that one head adds.
	Batch  int
	Logger *slog.Logger
	Stats  *SealStats
}

// SealBatch is the usual Batch: a backlog of a million takes 200 heads.
const SealBatch = 5000

// Run seals until nothing is left.
func (s *Sealer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		var r result
		err := pg.InTx(ctx, s.Pool, pg.TxOptions{TxOptions: pgx.TxOptions{IsoLevel: pgx.RepeatableRead}}, func(tx pgx.Tx) (err error) {
			r, err = s.round(ctx, tx)
			return err
		})
		if pg.IsUnique(err, headKey) || pg.Retryable(err) {
			s.Stats.Lost.Add(1) // another relay is at it; next time
			return nil
		}
		if err != nil {
			return err
		}
		s.Stats.Size.Store(r.size)
		if r.sealed {
			s.Stats.Seals.Add(1)
		}
		if !r.more {
			s.Stats.CaughtUp.Store(time.Now().UnixMilli())
			return nil
		}
	}
	return ctx.Err()
}

// result is what a round did: the size of the log, whether a head was signed, whether something is left.
type result struct {
	size         int64
	sealed, more bool
}

const (
	// As in OpenSession: what must never be chosen is switched off, because statistics lag behind such a table.
	// A head that was shown must not be lost, hence synchronous_commit.
	sealSettingsSQL = `
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true),
  set_config('plan_cache_mode', 'force_custom_plan', true), set_config('jit', 'off', true),
  CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', true) END`

	sealNowSQL = `SELECT pg_current_snapshot()::text, system_identifier FROM pg_control_system()`

	newestHeadSQL = `
SELECT seal, size, snapshot::text, paging::text, page_after, max_id, claim_xid::text, system_identifier, note
  FROM sametick.audit_heads ORDER BY seal DESC LIMIT 1`

	// What is visible now and was not in the head's snapshot, one more than wanted. The limits come after the leaves: what
	// was written while sealAbsentSQL was paging has some, and would take the place of what has none. A scalar, which the
	// planner makes no join of: it is looked up for each, whatever statistics say.
	sealDifferenceSQL = `
SELECT d.id FROM (
  (SELECT id FROM sametick.audit_entries WHERE txid >= $1::text::xid8 AND txid < pg_snapshot_xmax(pg_current_snapshot())
      AND (SELECT l.leaf FROM sametick.audit_leaves l WHERE l.entry_id = audit_entries.id) IS NULL LIMIT $3)
  UNION ALL
  (SELECT e.id FROM unnest($2::text[]::xid8[]) x CROSS JOIN LATERAL (SELECT id FROM sametick.audit_entries WHERE txid BETWEEN x AND x
      AND (SELECT l.leaf FROM sametick.audit_leaves l WHERE l.entry_id = audit_entries.id) IS NULL LIMIT $3) e LIMIT $3)
) d LIMIT $3`

	// Where a difference too large for one head begins. The sum keeps the planner from walking the primary key.
	sealBeginSQL = `
SELECT min(id + 0) - 1 FROM (
  SELECT id FROM sametick.audit_entries WHERE txid >= $1::text::xid8 AND txid < pg_snapshot_xmax(pg_current_snapshot())
  UNION ALL
  SELECT e.id FROM unnest($2::text[]::xid8[]) x CROSS JOIN LATERAL (SELECT id FROM sametick.audit_entries WHERE txid BETWEEN x AND x) e
) d`

	sealPageSQL = `
SELECT id FROM sametick.audit_entries e
 WHERE id > $1 AND pg_visible_in_snapshot(txid, $2::text::pg_snapshot) AND NOT pg_visible_in_snapshot(txid, $3::text::pg_snapshot)
   AND NOT EXISTS (SELECT FROM sametick.audit_leaves l WHERE l.entry_id = e.id)
 ORDER BY id LIMIT $4`

	// A page of all that no leaf names, whatever transaction wrote it.
	sealAbsentSQL = `
SELECT id FROM sametick.audit_entries e
 WHERE id > $1 AND NOT EXISTS (SELECT FROM sametick.audit_leaves l WHERE l.entry_id = e.id)
 ORDER BY id LIMIT $2`

	sealEntriesSQL = `SELECT ` + auditdb.Columns + ` FROM sametick.audit_entries e WHERE id = ANY($1) ORDER BY id`

	claimXidSQL = `SELECT pg_current_xact_id()::text`

	// headKey is the constraint that who loses a race violates.
	headKey = "audit_heads_pkey"

	insertHeadSQL = `
INSERT INTO sametick.audit_heads (seal, size, snapshot, paging, page_after, max_id, claim_xid, system_identifier, note)
VALUES ($1, $2, $3::text::pg_snapshot, $4::text::pg_snapshot, $5, $6, $7::text::xid8, $8, $9)`
)

// headRow is a row of audit_heads; Seal 0 before the first.
type headRow struct {
	seal, size       int64
	snapshot         sequence.Snapshot
	paging           *sequence.Snapshot
	pageAfter, maxID int64
	claimXid         string
	system           int64
	note             string
}

func (h *headRow) cursor() tlog.Hash {
	paging := ""
	if h.paging != nil {
		paging = h.paging.String()
	}
	return auditlog.Cursor(h.seal, h.snapshot.String(), paging, h.pageAfter, h.maxID, h.claimXid, h.system)
}

// round seals once.
func (s *Sealer) round(ctx context.Context, tx pgx.Tx) (r result, err error) {
	if _, err := tx.Exec(ctx, sealSettingsSQL); err != nil {
		return r, err
	}
	last, err := newestHead(ctx, tx)
	if err != nil {
		return r, err
	}
	r.size = last.size
	next, now, err := s.begin(ctx, tx, last)
	if err != nil {
		return r, err
	}
	ids, more, err := s.take(ctx, tx, &next, now)
	moved := last.seal > 0 && (last.paging != nil || next.system != last.system || now.Xmax < last.snapshot.Xmax)
	if err != nil || len(ids) == 0 && !moved {
		return r, err
	}
	tree, err := s.trusted(ctx, tx, last)
	if err != nil {
		return r, err
	}
	leaves, err := grow(ctx, tx, tree, ids)
	if err != nil {
		return r, err
	}
	// Not drawn from a sequence, which leaves a gap when this rolls back: a gap tells that heads were removed.
	next.seal, next.size = last.seal+1, tree.Size()
	return result{next.size, true, more}, s.write(ctx, tx, tree, &next, leaves)
}

// begin gives the cursor to go on from, and this round's snapshot: the cursor is the newest head's, or all that has
// no leaf where the transaction ids of the head are not this cluster's, as after a restore from a dump.
func (s *Sealer) begin(ctx context.Context, tx pgx.Tx, last headRow) (next headRow, now sequence.Snapshot, err error) {
	next = last
	var text string
	if err := tx.QueryRow(ctx, sealNowSQL).Scan(&text, &next.system); err != nil {
		return next, now, err
	}
	if now, err = sequence.ParseSnapshot(text); err != nil {
		return next, now, err
	}
	horizon := last.snapshot.Xmax
	if last.paging != nil {
		horizon = max(horizon, last.paging.Xmax)
	}
	if last.seal > 0 && (next.system != last.system || now.Xmax < horizon) {
		s.Logger.WarnContext(ctx, "the audit log was sealed in another cluster or its future: sealing all entries that no leaf names",
			"sealed", last.size, "horizon", horizon, "now", now.Xmax)
		next.snapshot, next.paging = sequence.Nothing(), nil
	}
	if next.paging == nil && next.first() {
		next.paging, next.pageAfter = &now, 0
	}
	return next, now, nil
}

// take gives the ids of the entries to seal, ascending, and moves the cursor over them.
func (s *Sealer) take(ctx context.Context, tx pgx.Tx, next *headRow, now sequence.Snapshot) (ids []int64, more bool, err error) {
	if next.paging == nil {
		since, xip := strconv.FormatUint(next.snapshot.Xmax, 10), xids(next.snapshot.Xip, &now)
		if ids, err = list(ctx, tx, sealDifferenceSQL, since, xip, s.Batch+1); err != nil {
			return nil, false, err
		}
		if len(ids) <= s.Batch {
			slices.Sort(ids)
			next.snapshot = now
			return ids, false, nil
		}
		next.paging = &now
		if next.pageAfter, err = one[int64](ctx, tx, sealBeginSQL, since, xip); err != nil {
			return nil, false, err
		}
	}
	if next.first() {
		ids, err = list(ctx, tx, sealAbsentSQL, next.pageAfter, s.Batch+1)
	} else {
		ids, err = list(ctx, tx, sealPageSQL, next.pageAfter, next.paging.String(), next.snapshot.String(), s.Batch+1)
	}
	if err != nil {
		return nil, false, err
	}
	if len(ids) > s.Batch {
		ids = ids[:s.Batch]
		next.pageAfter = ids[s.Batch-1]
		return ids, true, nil
	}
	next.snapshot, next.paging, next.pageAfter = *next.paging, nil, 0
	return ids, len(ids) > 0, nil // once more: what was committed since the paging began
}

func list(ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]int64, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// trusted gives the tree of the newest head, if the head is signed and the stored hashes are what it says: a head
// that was signed over a log that somebody has rewritten would vouch for it.
func (s *Sealer) trusted(ctx context.Context, tx pgx.Tx, last headRow) (*auditlog.Tree, error) {
	tree, err := auditlog.NewTree(last.size, storedHashes(ctx, tx))
	if err != nil || last.seal == 0 {
		return tree, err
	}
	signed, err := s.Verifier.Open(last.note)
	if err != nil {
		return nil, tampered("the newest head is signed by no key of AUDIT_SIGNING_KEY or AUDIT_PUBLIC_KEYS", err)
	}
	root, err := tree.Root()
	if err != nil {
		return nil, err
	}
	if signed.Size != last.size || signed.Cursor != last.cursor() || signed.Root != root {
		return nil, tampered("the stored audit log is not what its newest head has signed", nil)
	}
	return tree, nil
}

func tampered(text string, cause error) error {
	return errs.New(errs.FailedPrecondition, ReasonLogTampered, text+": find out with `tick audit verify`; nothing is sealed until it is mended").WithCause(cause)
}

// grow adds the entries to the tree, one in memory at a time, and gives the rows of audit_leaves.
func grow(ctx context.Context, tx pgx.Tx, tree *auditlog.Tree, ids []int64) (leaves [][]any, err error) {
	rows, err := tx.Query(ctx, sealEntriesSQL, ids)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		e, err := auditdb.ScanEntry(rows)
		if err != nil {
			return nil, err
		}
		salt := make([]byte, auditlog.SaltSize)
		_, _ = rand.Read(salt) // never fails
		hashes, err := tree.Add(auditlog.LeafHash(salt, e))
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, []any{tree.Size() - 1, e.ID, salt, auditlog.JoinHashes(hashes)})
	}
	if rows.Err() == nil && len(leaves) != len(ids) {
		return nil, fmt.Errorf("store: of %d entries to seal %d were found", len(ids), len(leaves))
	}
	return leaves, rows.Err()
}

func (s *Sealer) write(ctx context.Context, tx pgx.Tx, tree *auditlog.Tree, next *headRow, leaves [][]any) error {
	root, err := tree.Root()
	if err != nil {
		return err
	}
	if len(leaves) > 0 { // by id, so the last is the greatest
		id, _ := leaves[len(leaves)-1][1].(int64)
		next.maxID = max(next.maxID, id)
	}
	if err := tx.QueryRow(ctx, claimXidSQL).Scan(&next.claimXid); err != nil {
		return err
	}
	note, err := s.Signer.Sign(auditlog.Head{Size: next.size, Root: root, SealedAt: time.Now(), Cursor: next.cursor()})
	if err != nil {
		return err
	}
	var paging *string
	if next.paging != nil {
		text := next.paging.String()
		paging = &text
	}
	// The head first: its key is where a second relay waits, and loses.
	if _, err := tx.Exec(ctx, insertHeadSQL, next.seal, next.size, next.snapshot.String(), paging, next.pageAfter, next.maxID,
		next.claimXid, next.system, note); err != nil {
		return err
	}
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"sametick", "audit_leaves"}, []string{"leaf", "entry_id", "salt", "hashes"},
		pgx.CopyFromRows(leaves)); pg.IsUnique(err, "") {
		return tampered("the stored audit log has leaves that its newest head does not cover", err)
	} else if err != nil {
		return err
	}
	return nil
}

// first tells whether all that has no leaf is to be sealed, whatever transaction wrote it.
func (h *headRow) first() bool { return h.snapshot.Xmax == sequence.Nothing().Xmax }

func newestHead(ctx context.Context, db pg.RowQuerier) (h headRow, err error) {
	var (
		snapshot string
		paging   *string
	)
	err = db.QueryRow(ctx, newestHeadSQL).Scan(&h.seal, &h.size, &snapshot, &paging, &h.pageAfter, &h.maxID, &h.claimXid, &h.system, &h.note)
	if errors.Is(err, pgx.ErrNoRows) {
		return headRow{snapshot: sequence.Nothing()}, nil
	}
	if err != nil {
		return h, err
	}
	if h.snapshot, err = sequence.ParseSnapshot(snapshot); err != nil || paging == nil {
		return h, err
	}
	p, err := sequence.ParseSnapshot(*paging)
	h.paging = &p
	return h, err
}
