package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
)

// EnsurePartitions makes the partitions of runs ahead of time.
func (s *Store) EnsurePartitions(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, `SELECT sametick.ensure_prompt_run_partitions()`)
	return pg.Translate(err)
}

// DropPartition drops the oldest partition of runs when all of it is older, and tells whether it did.
func (s *Store) DropPartition(ctx context.Context, keepFrom time.Time) (dropped bool, err error) {
	var n int
	err = s.pool.QueryRow(ctx, `SELECT sametick.drop_prompt_run_partition($1)`, keepFrom).Scan(&n)
	return n > 0, pg.Translate(err)
}

// sealed are the columns with secrets.
func sealed() []struct{ read, write, purpose string } {
	return []struct{ read, write, purpose string }{
		{`SELECT org_id, id, key_sealed FROM sametick.prompt_providers WHERE key_sealed IS NOT NULL AND id > $1 ORDER BY id LIMIT $2 FOR UPDATE`,
			`UPDATE sametick.prompt_providers SET key_sealed = $3 WHERE org_id = $1 AND id = $2`, hooks.PurposeProviderKey},
		{`SELECT org_id, id, headers_sealed FROM sametick.mcp_servers WHERE headers_sealed IS NOT NULL AND id > $1 ORDER BY id LIMIT $2 FOR UPDATE`,
			`UPDATE sametick.mcp_servers SET headers_sealed = $3 WHERE org_id = $1 AND id = $2`, hooks.PurposeServerHeaders},
	}
}

// resealAt is how many secrets a transaction seals anew.
const resealAt = 100

// Reseal seals every secret anew that is not under the ring's first key, and gives how many it did. Others may work
// meanwhile.
func (s *Store) Reseal(ctx context.Context, ring *keyring.Ring) (n int, err error) {
	for _, column := range sealed() {
		for after, more := int64(0), true; more; {
			var did int
			if after, did, more, err = s.resealSome(ctx, ring, after, column.read, column.write, column.purpose); err != nil {
				return n, err
			}
			n += did
		}
	}
	return n, nil
}

func (s *Store) resealSome(ctx context.Context, ring *keyring.Ring, after int64, read, write, purpose string) (last int64, n int, more bool, err error) {
	type row struct {
		OrgID, ID int64
		Sealed    []byte
	}
	err = s.worker(ctx, func(tx pgx.Tx) error {
		list, err := many(ctx, tx, pgx.RowToStructByPos[row], read, after, resealAt)
		if err != nil {
			return err
		}
		last, n, more = after, 0, len(list) == resealAt
		for _, r := range list {
			if last = r.ID; !ring.Stale(r.Sealed) {
				continue
			}
			owner := keyring.Owner{OrgID: r.OrgID, ID: r.ID, Purpose: purpose}
			secret, err := ring.Open(owner, r.Sealed)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, write, r.OrgID, r.ID, ring.Seal(owner, secret)); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return last, n, more, err
}
