package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

const (
	insertKey = `INSERT INTO sametick.api_keys (org_id, id, hash, prefix, scopes, user_id, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING created_at, expires_at`

	keyColumns = `SELECT k.id, k.user_id, r.name, k.prefix, k.scopes, k.created_at, k.expires_at, r.archived_at, k.last_used_at
		FROM sametick.api_keys k JOIN sametick.records r ON r.org_id = k.org_id AND r.type = 'api_key' AND r.id = k.id
		WHERE k.org_id = $1`
	getKey    = keyColumns + ` AND k.id = $2`
	countKeys = `SELECT count(*) FROM sametick.api_keys WHERE org_id = $1`
	rotateKey = `UPDATE sametick.api_keys SET previous_hash = CASE WHEN $5 > 0 THEN hash END, previous_until = now() + $5 * interval '1 second',
		rotated_at = now(), hash = $3, prefix = $4 WHERE org_id = $1 AND id = $2`
	listKeys = keyColumns + ` ORDER BY k.created_at DESC, k.id DESC LIMIT $2 OFFSET $3`
)

// CreateKey implements identity.Keys.
func (s *Store) CreateKey(ctx context.Context, call records.Call, k identity.APIKey, hash []byte) (identity.APIKey, error) {
	var err error
	if k.ID, err = s.ids.next(ctx); err != nil {
		return k, err
	}
	b := batch(call.OrgID)
	if err := queueKey(b, call, k, hash); err != nil {
		return k, err
	}
	err = s.write(ctx, b, func(results pgx.BatchResults) error {
		for range 2 { // the record and its events
			if _, err := results.Exec(); err != nil {
				return err
			}
		}
		return results.QueryRow().Scan(&k.CreatedAt, &k.ExpiresAt)
	})
	return k, err
}

// queueKey queues a key's record, its events and the key.
func queueKey(b *pgx.Batch, call records.Call, k identity.APIKey, hash []byte) error {
	err := queueCreate(b, call, records.Record{Type: "api_key", ID: k.ID, Name: k.Name, Attributes: []byte("{}")}, records.Names{})
	b.Queue(insertKey, call.OrgID, k.ID, hash, k.Prefix, k.Scopes.Names(), k.UserID, k.ExpiresAt)
	return err
}

// RotateKey implements identity.Keys.
func (s *Store) RotateKey(ctx context.Context, call records.Call, id int64, n identity.NewKeySecretOf, check func(identity.APIKey) error) (k identity.APIKey, err error) {
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		if _, err := lock(ctx, c, call, lockRecord, "api_key", id, records.Refs{}); err != nil {
			return err
		}
		k, err = readKey(c.QueryRow(ctx, getKey, call.OrgID, id), call.OrgID)
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoKey()
		}
		if err == nil {
			err = check(k)
		}
		if err != nil {
			return err
		}
		seconds := int64(n.Overlap / time.Second)
		b := &pgx.Batch{}
		b.Queue(rotateKey, call.OrgID, id, n.Hash, n.Prefix, seconds)
		err := queueEvents(b, call, outbox.Event{OrgID: call.OrgID, AggregateType: "api_key", AggregateID: id, Action: "rotated",
			RecordName: k.Name, Extra: extra("overlap", seconds)})
		if err != nil {
			return err
		}
		k.Prefix = n.Prefix
		return commit(ctx, c, b)
	})
	if errs.HasReason(err, "RECORD_NOT_FOUND") {
		err = errNoKey()
	}
	return k, pg.Translate(err)
}

func errNoKey() error {
	return errs.New(errs.NotFound, "API_KEY_NOT_FOUND", "there is no such API key")
}

// GetKey implements identity.Keys.
func (s *Store) GetKey(ctx context.Context, orgID, id int64) (k identity.APIKey, err error) {
	b := batch(orgID)
	b.Queue(getKey, orgID, id)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) (err error) {
		k, err = readKey(results.QueryRow(), orgID)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return k, errNoKey()
	}
	return k, pg.Translate(err)
}

// ListKeys implements identity.Keys.
func (s *Store) ListKeys(ctx context.Context, orgID int64, p paging.Page) (list []identity.APIKey, total int64, err error) {
	err = s.read(ctx, orgID, func(b *pgx.Batch) {
		b.Queue(countKeys, orgID)
		b.Queue(listKeys, orgID, p.Limit, p.Offset)
	}, func(results pgx.BatchResults) error {
		if err := results.QueryRow().Scan(&total); err != nil {
			return err
		}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (identity.APIKey, error) { return readKey(row, orgID) })
		return err
	})
	return list, total, err
}

func readKey(row pgx.Row, orgID int64) (identity.APIKey, error) {
	k := identity.APIKey{OrgID: orgID}
	var scopes []string
	err := row.Scan(&k.ID, &k.UserID, &k.Name, &k.Prefix, &scopes, &k.CreatedAt, &k.ExpiresAt, &k.ArchivedAt, &k.LastUsedAt)
	k.Scopes = auth.ScopesOf(scopes...)
	return k, err
}

// FindKey implements identity.KeyFinder.
func (s *Store) FindKey(ctx context.Context, hash []byte) (k identity.APIKey, err error) {
	var scopes []string
	err = s.pool.QueryRow(ctx, `SELECT org_id, id, user_id, scopes, expires_at FROM sametick.find_api_key($1)`, hash).
		Scan(&k.OrgID, &k.ID, &k.UserID, &scopes, &k.ExpiresAt)
	k.Scopes = auth.ScopesOf(scopes...)
	return k, pg.Translate(err)
}
