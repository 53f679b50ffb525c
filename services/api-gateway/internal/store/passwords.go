package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

const (
	findHolder = `SELECT c.org_id, c.user_id, r.name, c.email, c.password_hash, false, false
		FROM sametick.credentials c JOIN sametick.records r ON r.org_id = c.org_id AND r.type = 'user' AND r.id = c.user_id
		WHERE c.org_id = $1 AND c.user_id = $2 AND r.archived_at IS NULL`

	insertToken = `INSERT INTO sametick.user_tokens (org_id, hash, user_id, purpose, expires_at) VALUES ($1, $2, $3, $4, $5)`
	voidTokens  = `UPDATE sametick.user_tokens SET expires_at = least(expires_at, now()) WHERE org_id = $1 AND user_id = $2 AND used_at IS NULL`
	useToken    = `UPDATE sametick.user_tokens SET used_at = now()
		WHERE org_id = $1 AND user_id = $2 AND hash = $3 AND used_at IS NULL AND expires_at > now()`
	setPassword = `UPDATE sametick.credentials SET password_hash = $3 WHERE org_id = $1 AND user_id = $2 AND ($4 = '' OR password_hash = $4)`
)

// FindHolder implements identity.Passwords.
func (s *Store) FindHolder(ctx context.Context, orgID, userID int64) (h identity.Holder, err error) {
	b := batch(orgID)
	b.Queue(findHolder, orgID, userID)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) error {
		return results.QueryRow().Scan(&h.OrgID, &h.ID, &h.Name, &h.Email, &h.PasswordHash, &h.Used, &h.Expired)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return h, records.ErrNotFound("user", userID)
	}
	return h, pg.Translate(err)
}

// FindToken implements identity.Passwords.
func (s *Store) FindToken(ctx context.Context, hash []byte, p identity.Purpose) (h identity.Holder, err error) {
	var scopes []string
	err = s.pool.QueryRow(ctx, `SELECT org_id, user_id, user_name, email, used, expired, scopes FROM sametick.find_user_token($1, $2)`, hash, string(p)).
		Scan(&h.OrgID, &h.ID, &h.Name, &h.Email, &h.Used, &h.Expired, &scopes)
	h.Scopes = auth.ScopesOf(scopes...)
	return h, pg.Translate(err)
}

// SetPassword implements identity.Passwords: one round trip to use up what allows it, one to write.
func (s *Store) SetPassword(ctx context.Context, call records.Call, n identity.NewPassword) error {
	err := s.connected(ctx, func(c *pgxpool.Conn) error {
		first := transaction(call.OrgID, "BEGIN")
		if n.Token != nil {
			first.Queue(useToken, call.OrgID, n.UserID, n.Token)
		}
		first.Queue(setPassword, call.OrgID, n.UserID, n.Hash, n.Was)
		err := send(ctx, c, first, 2, func(results pgx.BatchResults) error {
			if n.Token != nil {
				if tag, err := results.Exec(); err != nil {
					return err
				} else if tag.RowsAffected() == 0 {
					return identity.ErrTokenUsed()
				}
			}
			tag, err := results.Exec()
			if err == nil && tag.RowsAffected() == 0 {
				err = errs.New(errs.Aborted, "CONFLICT", "another change of the password came first")
			}
			return err
		})
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		if err := queuePasswordSet(b, call, n); err != nil {
			return err
		}
		return commit(ctx, c, b)
	})
	return pg.Translate(err)
}

// queuePasswordSet queues what goes with a new password.
func queuePasswordSet(b *pgx.Batch, call records.Call, n identity.NewPassword) error {
	var keep *string
	more := extra()
	if n.Keep != "" {
		keep, more = &n.Keep, extra("kept_session_id", n.Keep)
	}
	b.Queue(voidTokens, call.OrgID, n.UserID)
	b.Queue(endSessions, call.OrgID, n.UserID, nil, keep)
	b.Queue(endFamilies, call.OrgID, n.UserID, nil, keep)
	if n.Start == nil {
		return queueEvents(b, call, authEvent(call.OrgID, n.UserID, n.Name, "password_changed", more))
	}
	if err := queueEvents(b, call, userEvent(call.OrgID, n.UserID, n.Name, "joined", nil)); err != nil {
		return err
	}
	return queueSession(b, call, n.UserID, n.Name, *n.Start)
}

// queueToken queues a one-time token in the place of a user's earlier ones.
func queueToken(b *pgx.Batch, orgID, userID int64, t identity.UserToken) {
	b.Queue(voidTokens, orgID, userID)
	b.Queue(insertToken, orgID, t.Hash, userID, string(t.Purpose), t.Expires)
}

// IssueToken implements identity.Members.
func (s *Store) IssueToken(ctx context.Context, call records.Call, userID int64, t identity.UserToken) error {
	err := s.connected(ctx, func(c *pgxpool.Conn) error {
		current, err := lock(ctx, c, call, lockRecord, "user", userID, records.Refs{})
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		queueToken(b, call.OrgID, userID, t)
		err = queueEvents(b, call, userEvent(call.OrgID, userID, current.Name, "password_reset_started", extra("expires_at", t.Expires.UTC())))
		if err != nil {
			return err
		}
		return commit(ctx, c, b)
	})
	return pg.Translate(err)
}

// BeginLogin implements identity.Throttle.
func (s *Store) BeginLogin(ctx context.Context, a identity.Attempt) (time.Duration, error) {
	var seconds float64
	err := s.pool.QueryRow(ctx, `SELECT sametick.begin_login($1, $2, $3)`, a.Pair, a.Account, a.Address).Scan(&seconds)
	return time.Duration(seconds * float64(time.Second)), pg.Translate(err)
}

// EndLogin implements identity.Throttle.
func (s *Store) EndLogin(ctx context.Context, a identity.Attempt) error {
	_, err := s.pool.Exec(ctx, `SELECT sametick.end_login($1, $2, $3)`, a.Pair, a.Account, a.Address)
	return pg.Translate(err)
}
