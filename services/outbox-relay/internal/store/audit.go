package store

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
)

// AuditLog reads the sealed log and makes proofs of it. Safe for concurrent use.
type AuditLog struct{ pool *pgxpool.Pool }

// NewAuditLog reads through a pool.
func NewAuditLog(pool *pgxpool.Pool) *AuditLog { return &AuditLog{pool} }

const (
	leafSQL   = `SELECT leaf, salt FROM sametick.audit_leaves WHERE entry_id = $1`
	hashesSQL = `SELECT leaf, hashes FROM sametick.audit_leaves WHERE leaf = ANY($1)`
)

// sealPause is after how long an entry that is not sealed yet will be.
const sealPause = time.Second

// Head gives the newest signed head and its size. Failed precondition while nothing is sealed.
func (l *AuditLog) Head(ctx context.Context) (signed string, size int64, err error) {
	h, err := newestHead(ctx, l.pool)
	if err == nil && h.seal == 0 {
		err = errs.New(errs.FailedPrecondition, "NOTHING_SEALED", "no audit entry is sealed yet: does an outbox-relay run with AUDIT_SIGNING_KEY?")
	}
	return h.note, h.size, pg.Translate(err)
}

// Inclusion proves that an entry is in the newest head. Unavailable, for a second, while it is not sealed.
func (l *AuditLog) Inclusion(ctx context.Context, entryID int64) (p auditlog.Inclusion, err error) {
	p.EntryID = entryID
	var size int64
	if p.Head, size, err = l.Head(ctx); err != nil {
		return p, err
	}
	var salt []byte
	err = pg.Translate(l.pool.QueryRow(ctx, leafSQL, entryID).Scan(&p.Leaf, &salt))
	if errs.KindOf(err) == errs.NotFound || err == nil && p.Leaf >= size {
		return p, errs.New(errs.Unavailable, "NOT_SEALED", "the entry is not sealed yet").WithRetryAfter(sealPause)
	}
	if err != nil {
		return p, err
	}
	path, err := tlog.ProveRecord(size, p.Leaf, storedHashes(ctx, l.pool))
	p.Salt, p.Hashes = base64.StdEncoding.EncodeToString(salt), hashTexts(path)
	return p, pg.Translate(err)
}

// Consistency proves that the log of size to begins with that of size from.
func (l *AuditLog) Consistency(ctx context.Context, from, to int64) ([]string, error) {
	_, size, err := l.Head(ctx)
	if err != nil {
		return nil, err
	}
	bad, found := errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields"), false
	if from < 1 || from > size {
		bad, found = bad.WithField("from", "OUT_OF_RANGE", fmt.Sprintf("1 to %d, the size of the newest head", size)), true
	}
	if to < max(from, 1) || to > size {
		bad, found = bad.WithField("to", "OUT_OF_RANGE", fmt.Sprintf("from to %d, the size of the newest head", size)), true
	}
	if found {
		return nil, bad
	}
	path, err := tlog.ProveTree(to, from, storedHashes(ctx, l.pool))
	return hashTexts(path), pg.Translate(err)
}

func hashTexts(hashes []tlog.Hash) []string {
	out := make([]string, len(hashes))
	for i, h := range hashes {
		out[i] = h.String()
	}
	return out
}

// storedHashes reads hashes of the tree by tlog's index.
func storedHashes(ctx context.Context, db querier) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		leaves := make([]int64, len(indexes))
		for i, index := range indexes {
			leaves[i], _ = auditlog.Place(index)
		}
		rows, err := db.Query(ctx, hashesSQL, leaves)
		if err != nil {
			return nil, err
		}
		var (
			leaf   int64
			hashes []byte
		)
		stored := make(map[int64][]byte, len(leaves))
		if _, err := pgx.ForEachRow(rows, []any{&leaf, &hashes}, func() error {
			stored[leaf] = append([]byte(nil), hashes...)
			return nil
		}); err != nil {
			return nil, err
		}
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			_, nth := auditlog.Place(index)
			b := stored[leaves[i]]
			if len(b) < (nth+1)*tlog.HashSize {
				return nil, tampered(fmt.Sprintf("the stored audit log lacks a hash of leaf %d", leaves[i]), nil)
			}
			out[i] = tlog.Hash(b[nth*tlog.HashSize : (nth+1)*tlog.HashSize])
		}
		return out, nil
	})
}
