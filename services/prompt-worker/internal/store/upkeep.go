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

const (
	// bookable is how long a day may still be booked to: what is guessed of an attempt is corrected for a day after its
	// expiry, and an attempt that begins at midnight expires in the next one.
	bookable = 3 * 24 * time.Hour
	// pruneAt is how many budgets a transaction drops.
	pruneAt = 5000

	pruneBudgets = `
DELETE FROM sametick.prompt_budgets WHERE (org_id, hook_id, day) IN (
  SELECT b.org_id, b.hook_id, b.day FROM sametick.prompt_budgets b
   WHERE b.day < $1 AND (b.held_runs, b.held_tokens, b.held_cost) = (0, 0, 0)
     AND NOT EXISTS (SELECT FROM sametick.prompt_reservations r WHERE r.org_id = b.org_id AND b.hook_id IN (0, r.hook_id) AND r.day = b.day)
   ORDER BY b.day LIMIT $2 FOR UPDATE SKIP LOCKED)`
)

// PruneBudgets drops the budgets of UTC days before keepFrom, and gives how many; never those of the last three days, nor
// one of which anything is held or may be booked yet.
func (s *Store) PruneBudgets(ctx context.Context, keepFrom time.Time) (n int64, err error) {
	if latest := time.Now().Add(-bookable); keepFrom.After(latest) {
		keepFrom = latest
	}
	for did := int64(pruneAt); did == pruneAt; {
		err := s.worker(ctx, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, pruneBudgets, keepFrom.UTC().Truncate(24*time.Hour), pruneAt)
			did = tag.RowsAffected()
			return err
		})
		if err != nil {
			return n, err
		}
		n += did
	}
	return n, nil
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
