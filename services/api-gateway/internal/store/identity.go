package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

const (
	insertRefresh = `INSERT INTO sametick.refresh_tokens (org_id, hash, user_id, family, expires_at)
		VALUES ($1, $2, $3, gen_random_uuid(), $4)`

	insertKey = `INSERT INTO sametick.api_keys (org_id, id, hash, prefix, scopes, user_id, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING created_at, expires_at`

	keyColumns = `SELECT k.id, k.user_id, r.name, k.prefix, k.scopes, k.created_at, k.expires_at, r.archived_at
		FROM sametick.api_keys k JOIN sametick.records r ON r.org_id = k.org_id AND r.type = 'api_key' AND r.id = k.id
		WHERE k.org_id = $1`
	getKey    = keyColumns + ` AND k.id = $2`
	countKeys = `SELECT count(*) FROM sametick.api_keys WHERE org_id = $1`
	listKeys  = keyColumns + ` ORDER BY k.created_at DESC, k.id DESC LIMIT $2 OFFSET $3`
)

// FindUser implements identity.Users.
func (s *Store) FindUser(ctx context.Context, email string) (u identity.User, err error) {
	var scopes []string
	err = s.pool.QueryRow(ctx, `SELECT org_id, user_id, user_name, password_hash, scopes FROM sametick.find_credentials($1)`, email).
		Scan(&u.OrgID, &u.ID, &u.Name, &u.PasswordHash, &scopes)
	u.Scopes = auth.ScopesOf(scopes...)
	return u, pg.Translate(err)
}

// StartSession implements identity.Users.
func (s *Store) StartSession(ctx context.Context, call records.Call, u identity.User, refreshHash []byte, expires time.Time) error {
	b := batch(u.OrgID)
	b.Queue(insertRefresh, u.OrgID, refreshHash, u.ID, expires)
	if err := queueEvents(b, call, authEvent(u.OrgID, u.ID, u.Name, "login")); err != nil {
		return err
	}
	return s.write(ctx, b, func(pgx.BatchResults) error { return nil })
}

func authEvent(orgID, userID int64, name, action string) outbox.Event {
	return outbox.Event{OrgID: orgID, AggregateType: "user", AggregateID: userID, Action: action, EventType: "auth." + action, RecordName: name}
}

// RotateRefresh implements identity.Sessions.
func (s *Store) RotateRefresh(ctx context.Context, hash, next []byte, expires time.Time) (identity.User, identity.RefreshOutcome, error) {
	var (
		u         identity.User
		result    string
		orgID, id *int64
		scopes    []string
	)
	err := s.pool.QueryRow(ctx, `SELECT outcome, org_id, user_id, scopes FROM sametick.rotate_refresh_token($1, $2, $3)`, hash, next, expires).
		Scan(&result, &orgID, &id, &scopes)
	if orgID != nil && id != nil {
		u.OrgID, u.ID, u.Scopes = *orgID, *id, auth.ScopesOf(scopes...)
	}
	return u, identity.RefreshOutcome(result), outcome(err)
}

// EndSession implements identity.Sessions.
func (s *Store) EndSession(ctx context.Context, call records.Call, hash []byte) error {
	return pg.InTx(ctx, s.pool, pg.TxOptions{}, func(tx pgx.Tx) error {
		var (
			orgID, id int64
			name      string
		)
		err := tx.QueryRow(ctx, `SELECT org_id, user_id, user_name FROM sametick.end_session($1)`, hash).Scan(&orgID, &id, &name)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		call.OrgID, call.ActorID = orgID, &id
		b := batch(orgID)
		if err := queueEvents(b, call, authEvent(orgID, id, name, "logout")); err != nil {
			return err
		}
		return send(ctx, tx, b, 2, func(pgx.BatchResults) error { return nil })
	})
}

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

// GetKey implements identity.Keys.
func (s *Store) GetKey(ctx context.Context, orgID, id int64) (k identity.APIKey, err error) {
	b := batch(orgID)
	b.Queue(getKey, orgID, id)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) (err error) {
		k, err = readKey(results.QueryRow(), orgID)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return k, errs.New(errs.NotFound, "API_KEY_NOT_FOUND", "there is no such API key")
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
	err := row.Scan(&k.ID, &k.UserID, &k.Name, &k.Prefix, &scopes, &k.CreatedAt, &k.ExpiresAt, &k.ArchivedAt)
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
