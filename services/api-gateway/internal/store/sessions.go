package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

const (
	insertSession = `INSERT INTO sametick.sessions (org_id, id, user_id, expires_at, user_agent, ip)
		VALUES ($1, $2, $3, $4, $5, nullif($6, '')::inet)`
	insertRefresh = `INSERT INTO sametick.refresh_tokens (org_id, hash, user_id, family, expires_at) VALUES ($1, $2, $3, $4, $5)`

	renewSession = `SELECT outcome, org_id, user_id, user_name, session_id::text, scopes
		FROM sametick.renew_session($1, $2, $3, nullif($4, ''), nullif($5, '')::inet)`
	finishSession = `SELECT org_id, user_id, user_name, session_id::text FROM sametick.finish_session($1, $2)`

	// All of a user's ($3, $4 null), one ($3) or all but one ($4).
	endSessions = `UPDATE sametick.sessions SET revoked_at = now() WHERE org_id = $1 AND user_id = $2 AND revoked_at IS NULL
		AND ($3::uuid IS NULL OR id = $3) AND id IS DISTINCT FROM $4::uuid RETURNING id::text`
	endFamilies = `UPDATE sametick.refresh_tokens SET revoked_at = now() WHERE org_id = $1 AND user_id = $2 AND revoked_at IS NULL
		AND ($3::uuid IS NULL OR family = $3) AND family IS DISTINCT FROM $4::uuid`

	openSessions  = ` FROM sametick.sessions WHERE org_id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > now()`
	countSessions = `SELECT count(*)` + openSessions
	listSessions  = `SELECT id::text, user_agent, coalesce(host(ip), ''), created_at, last_used_at, expires_at` + openSessions +
		` ORDER BY last_used_at DESC, id LIMIT $3 OFFSET $4`

	userName = `SELECT name FROM sametick.records WHERE org_id = $1 AND type = 'user' AND id = $2`
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
func (s *Store) StartSession(ctx context.Context, call records.Call, u identity.User, n identity.NewSession) error {
	b := batch(u.OrgID)
	if err := queueSession(b, call, u.ID, u.Name, n); err != nil {
		return err
	}
	return s.write(ctx, b, func(pgx.BatchResults) error { return nil })
}

// queueSession queues a session, its first refresh token and auth.login.
func queueSession(b *pgx.Batch, call records.Call, userID int64, name string, n identity.NewSession) error {
	b.Queue(insertSession, call.OrgID, n.ID, userID, n.Expires, call.UserAgent, call.IP)
	b.Queue(insertRefresh, call.OrgID, n.RefreshHash, userID, n.ID, n.Expires)
	return queueEvents(b, call, authEvent(call.OrgID, userID, name, "login", extra("session_id", n.ID)))
}

// authEvent is an event of a user's login, with what ends streams of its tokens beside: see
// services/sse-gateway/internal/hub.
func authEvent(orgID, userID int64, name, action string, more json.RawMessage) outbox.Event {
	return outbox.Event{OrgID: orgID, AggregateType: "user", AggregateID: userID, Action: action, EventType: "auth." + action, RecordName: name, Extra: more}
}

// extra makes a JSON object of keys and values.
func extra(pairs ...any) json.RawMessage {
	object := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if key, ok := pairs[i].(string); ok {
			object[key] = pairs[i+1]
		}
	}
	text, err := json.Marshal(object)
	if err != nil { // texts and numbers always encode
		return nil
	}
	return text
}

// RotateRefresh implements identity.Sessions.
func (s *Store) RotateRefresh(ctx context.Context, call records.Call, hash []byte, next identity.NewSession) (u identity.User, session string, o identity.RefreshOutcome, err error) {
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		var (
			orgID, id  *int64
			name, sid  *string
			result     string
			scopes     []string
			begin, end pgx.Batch
		)
		begin.Queue("BEGIN")
		begin.Queue(renewSession, hash, next.RefreshHash, next.Expires, call.UserAgent, call.IP)
		err := send(ctx, c, &begin, 1, func(results pgx.BatchResults) error {
			return results.QueryRow().Scan(&result, &orgID, &id, &name, &sid, &scopes)
		})
		if err != nil {
			return err
		}
		o = identity.RefreshOutcome(result)
		if orgID != nil && id != nil && name != nil && sid != nil {
			u, session = identity.User{OrgID: *orgID, ID: *id, Name: *name, Scopes: auth.ScopesOf(scopes...)}, *sid
		}
		if o == identity.Reused {
			call.OrgID, call.ActorID = u.OrgID, nil // who of the two came is not known
			if err := queueEvents(&end, call, authEvent(u.OrgID, u.ID, u.Name, "logout", extra("session_id", session, "reason", "refresh_token_reused"))); err != nil {
				return err
			}
		}
		return commit(ctx, c, &end)
	})
	return u, session, o, pg.Translate(err)
}

// EndSession implements identity.Sessions.
func (s *Store) EndSession(ctx context.Context, call records.Call, hash []byte, all bool) error {
	err := s.connected(ctx, func(c *pgxpool.Conn) error {
		var (
			id         int64
			name, sid  string
			begin, end pgx.Batch
		)
		begin.Queue("BEGIN")
		begin.Queue(finishSession, hash, all)
		err := send(ctx, c, &begin, 1, func(results pgx.BatchResults) error {
			return results.QueryRow().Scan(&call.OrgID, &id, &name, &sid)
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		call.ActorID = &id
		if err := queueEvents(&end, call, logout(call.OrgID, id, name, sid, all)); err != nil {
			return err
		}
		return commit(ctx, c, &end)
	})
	return pg.Translate(err)
}

func logout(orgID, userID int64, name, session string, all bool) outbox.Event {
	more := extra("session_id", session)
	if all {
		more = extra("all", true)
	}
	return authEvent(orgID, userID, name, "logout", more)
}

// ListSessions implements identity.Sessions.
func (s *Store) ListSessions(ctx context.Context, orgID, userID int64, p paging.Page) (list []identity.Session, total int64, err error) {
	err = s.read(ctx, orgID, func(b *pgx.Batch) {
		b.Queue(countSessions, orgID, userID)
		b.Queue(listSessions, orgID, userID, p.Limit, p.Offset)
	}, func(results pgx.BatchResults) error {
		if err := results.QueryRow().Scan(&total); err != nil {
			return err
		}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (v identity.Session, err error) {
			err = row.Scan(&v.ID, &v.UserAgent, &v.IP, &v.CreatedAt, &v.LastUsedAt, &v.ExpiresAt)
			return v, err
		})
		return err
	})
	return list, total, err
}

// EndOwnSessions implements identity.Sessions.
func (s *Store) EndOwnSessions(ctx context.Context, call records.Call, id string) error {
	user := *call.ActorID
	var only *string
	if id != "" {
		only = &id
	}
	err := s.connected(ctx, func(c *pgxpool.Conn) error {
		var name string
		var ended []string
		b := transaction(call.OrgID, "BEGIN")
		b.Queue(userName, call.OrgID, user)
		b.Queue(endSessions, call.OrgID, user, only, nil)
		b.Queue(endFamilies, call.OrgID, user, only, nil)
		err := send(ctx, c, b, 2, func(results pgx.BatchResults) error {
			if err := results.QueryRow().Scan(&name); err != nil {
				return err
			}
			rows, err := results.Query()
			if err != nil {
				return err
			}
			ended, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
		switch {
		case err != nil:
			return err
		case len(ended) == 0 && only != nil:
			return identity.ErrNoSession()
		case len(ended) == 0:
			return nil
		}
		var end pgx.Batch
		if err := queueEvents(&end, call, logout(call.OrgID, user, name, id, only == nil)); err != nil {
			return err
		}
		return commit(ctx, c, &end)
	})
	return pg.Translate(err)
}

const findStanding = `SELECT NOT sametick.org_archived($1)
		AND NOT EXISTS (SELECT FROM sametick.records WHERE org_id = $1 AND type = 'user' AND id = $2 AND archived_at IS NOT NULL)
		AND NOT EXISTS (SELECT FROM sametick.records WHERE org_id = $1 AND type = 'api_key' AND id = $3 AND archived_at IS NOT NULL)
		AND ($4::uuid IS NULL OR EXISTS (SELECT FROM sametick.sessions WHERE org_id = $1 AND id = $4 AND user_id = $2 AND revoked_at IS NULL)),
	CASE WHEN EXISTS (SELECT FROM sametick.credentials WHERE org_id = $1 AND user_id = $2) THEN sametick.user_scopes($1, $2) END,
	(SELECT rotated_at FROM sametick.api_keys WHERE org_id = $1 AND id = $3 AND previous_until <= now())`

// FindStanding implements identity.StandingFinder.
func (s *Store) FindStanding(ctx context.Context, p auth.Principal) (st identity.Standing, err error) {
	var (
		key       *int64
		session   *string
		scopes    []string
		notBefore *time.Time
	)
	if kind, id, ok := auth.ParseSubject(p.Subject); ok && kind == auth.SubjectAPIKey {
		key = &id
	}
	if p.SessionID != "" {
		session = &p.SessionID
	}
	b := batch(p.OrgID)
	b.Queue(findStanding, p.OrgID, p.UserID, key, session)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) error {
		return results.QueryRow().Scan(&st.Active, &scopes, &notBefore)
	})
	st.Scopes = ^auth.Scopes(0)
	if scopes != nil {
		st.Scopes = auth.ScopesOf(scopes...)
	}
	if notBefore != nil {
		st.NotBefore = *notBefore
	}
	return st, pg.Translate(err)
}
