package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// EnsurePartitions makes the history's partitions of the next days, and gives how many were missing.
func (s *Worker) EnsurePartitions(ctx context.Context) (made int, err error) {
	err = s.pool.QueryRow(ctx, "SELECT sametick.ensure_attempt_partitions()").Scan(&made)
	return made, pg.Translate(err)
}

// DropPartition drops the oldest day of history when all of it is before keepFrom.
func (s *Worker) DropPartition(ctx context.Context, keepFrom time.Time) (dropped bool, err error) {
	var n int
	err = s.pool.QueryRow(ctx, "SELECT sametick.drop_attempt_partition($1)", keepFrom).Scan(&n)
	return n > 0, pg.Translate(err)
}

// Backlog counts what waits, and says since when; nil when nothing does.
func (s *Worker) Backlog(ctx context.Context) (n int64, oldest *time.Time, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, "SELECT count(*), min(created_at) FROM sametick.webhook_queue").Scan(&n, &oldest)
	})
	return n, oldest, err
}

// Cursor gives a consumer's position in a shard; 0 before it has begun.
func (s *Worker) Cursor(ctx context.Context, consumer string, shard int) (int64, error) {
	position, _, err := stream.LoadCursor(ctx, s.pool, consumer, shard)
	return position, err
}

// sealedIn are the columns that hold what is sealed: how they are read, a batch after a key, and written.
var sealedIn = []struct{ purpose, read, write string }{
	{delivery.PurposeSecret,
		`SELECT org_id, endpoint_id, id, sealed FROM sametick.webhook_secrets WHERE (org_id, endpoint_id, id) > ($1, $2, $3) ORDER BY org_id, endpoint_id, id LIMIT 500`,
		`UPDATE sametick.webhook_secrets SET sealed = $5 WHERE org_id = $1 AND endpoint_id = $2 AND id = $3 AND sealed = $4`},
	{delivery.PurposeAuth,
		`SELECT org_id, id, 0::bigint, auth_sealed FROM sametick.webhook_endpoints WHERE (org_id, id, 0) > ($1, $2, $3) AND auth_sealed IS NOT NULL ORDER BY org_id, id LIMIT 500`,
		`UPDATE sametick.webhook_endpoints SET auth_sealed = $5 WHERE org_id = $1 AND id = $2 AND $3::bigint = 0 AND auth_sealed = $4`},
	{delivery.PurposeClientKey,
		`SELECT org_id, id, 0::bigint, client_key_sealed FROM sametick.webhook_endpoints WHERE (org_id, id, 0) > ($1, $2, $3) AND client_key_sealed IS NOT NULL ORDER BY org_id, id LIMIT 500`,
		`UPDATE sametick.webhook_endpoints SET client_key_sealed = $5 WHERE org_id = $1 AND id = $2 AND $3::bigint = 0 AND client_key_sealed = $4`},
}

// secret is one sealed value and where it is.
type secret struct {
	Org, Endpoint, ID int64
	Sealed            []byte
}

// Reencrypt seals anew what is sealed under another than the ring's first key, and gives how many that were. What changes
// meanwhile is sealed under the first key by who changes it.
func (s *Store) Reencrypt(ctx context.Context, ring *keyring.Ring) (n int, err error) {
	for _, in := range sealedIn {
		for after := (secret{}); ; {
			var list []secret
			err := s.worker(ctx, func(tx pgx.Tx) error {
				rows, err := tx.Query(ctx, in.read, after.Org, after.Endpoint, after.ID)
				if err != nil {
					return err
				}
				if list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[secret]); err != nil {
					return err
				}
				for _, v := range list {
					done, err := reseal(ctx, tx, ring, in.purpose, in.write, v)
					if err != nil {
						return err
					}
					n += done
				}
				return nil
			})
			if err != nil {
				return n, err
			}
			if len(list) == 0 {
				break
			}
			after = list[len(list)-1]
		}
	}
	return n, nil
}

func reseal(ctx context.Context, tx pgx.Tx, ring *keyring.Ring, purpose, write string, v secret) (int, error) {
	if len(v.Sealed) == 0 || !ring.Stale(v.Sealed) {
		return 0, nil
	}
	owner := keyring.Owner{OrgID: v.Org, ID: v.Endpoint, Purpose: purpose}
	text, err := ring.Open(owner, v.Sealed)
	if err != nil {
		return 0, err
	}
	tag, err := tx.Exec(ctx, write, v.Org, v.Endpoint, v.ID, v.Sealed, ring.Seal(owner, text))
	return int(tag.RowsAffected()), err
}
