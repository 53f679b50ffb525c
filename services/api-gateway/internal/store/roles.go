package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

const (
	insertRole = `INSERT INTO sametick.roles (org_id, id, scopes, administrator) VALUES ($1, $2, $3, $4)`
	setScopes  = `UPDATE sametick.roles SET scopes = $3 WHERE org_id = $1 AND id = $2`

	roleColumns = `SELECT r.id, r.name, q.scopes, q.administrator, r.version, r.created_at, r.updated_at, r.archived_at`
	roles       = ` FROM sametick.records r JOIN sametick.roles q ON q.org_id = r.org_id AND q.id = r.id WHERE r.org_id = $1 AND r.type = 'role'`
	rolesByID   = roleColumns + roles + ` AND r.id = ANY($2)`
	countRoles  = `SELECT count(*)` + roles + ` AND ($2 OR r.archived_at IS NULL)`
	listRoles   = roleColumns + roles + ` AND ($2 OR r.archived_at IS NULL) ORDER BY r.created_at DESC, r.id DESC LIMIT $3 OFFSET $4`
)

// CreateRole implements identity.Roles.
func (s *Store) CreateRole(ctx context.Context, call records.Call, r identity.Role) (identity.Role, error) {
	var err error
	if r.ID, err = s.ids.next(ctx); err != nil {
		return r, err
	}
	b := batch(call.OrgID)
	if err := queueCreate(b, call, records.Record{Type: "role", ID: r.ID, Name: r.Name, Attributes: []byte("{}")}, records.Names{}); err != nil {
		return r, err
	}
	b.Queue(insertRole, call.OrgID, r.ID, r.Scopes.Names(), false)
	err = s.write(ctx, b, func(results pgx.BatchResults) error {
		made, err := readRecord(results.QueryRow(), call.OrgID)
		r.CreatedAt, r.UpdatedAt = made.CreatedAt, made.UpdatedAt
		return err
	})
	return r, err
}

// ListRoles implements identity.Roles.
func (s *Store) ListRoles(ctx context.Context, orgID int64, p paging.Page, archived bool) (list []identity.Role, total int64, err error) {
	err = s.read(ctx, orgID, func(b *pgx.Batch) {
		b.Queue(countRoles, orgID, archived)
		b.Queue(listRoles, orgID, archived, p.Limit, p.Offset)
	}, func(results pgx.BatchResults) error {
		if err := results.QueryRow().Scan(&total); err != nil {
			return err
		}
		list, err = readRoles(results)
		return err
	})
	return list, total, err
}

// RolesByID implements identity.Roles.
func (s *Store) RolesByID(ctx context.Context, orgID int64, ids []int64) (list []identity.Role, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	b := batch(orgID)
	b.Queue(rolesByID, orgID, ids)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) (err error) {
		list, err = readRoles(results)
		return err
	})
	return list, pg.Translate(err)
}

func readRoles(results pgx.BatchResults) ([]identity.Role, error) {
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (identity.Role, error) { return readRole(row) })
}

func readRole(row pgx.Row) (r identity.Role, err error) {
	var scopes []string
	err = row.Scan(&r.ID, &r.Name, &scopes, &r.Administrator, &r.Version, &r.CreatedAt, &r.UpdatedAt, &r.ArchivedAt)
	r.Scopes = auth.ScopesOf(scopes...)
	return r, err
}

// ChangeRole implements identity.Roles.
func (s *Store) ChangeRole(ctx context.Context, call records.Call, id int64, decide func(identity.Role) (*identity.RoleChange, error)) (r identity.Role, err error) {
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		current, err := lock(ctx, c, call, lockRecord, "role", id, records.Refs{})
		if err != nil {
			return err
		}
		r, err = readRole(c.QueryRow(ctx, rolesByID, call.OrgID, []int64{id}))
		if errors.Is(err, pgx.ErrNoRows) {
			return records.ErrNotFound("role", id)
		}
		if err != nil {
			return err
		}
		change, err := decide(r)
		if err != nil || change == nil {
			return err
		}
		b := &pgx.Batch{}
		if err := queueNamed(b, call, &current, change.Next.Name, change.Changes); err != nil {
			return err
		}
		b.Queue(setScopes, call.OrgID, id, change.Next.Scopes.Names())
		r = change.Next
		r.Version, r.UpdatedAt = current.Version, current.UpdatedAt
		return commit(ctx, c, b)
	})
	return r, pg.Translate(err)
}

const (
	findLinked = `SELECT r.id, r.name, sametick.user_scopes($1, r.id) FROM sametick.external_identities i
		JOIN sametick.records r ON r.org_id = $1 AND r.type = 'user' AND r.id = i.user_id AND r.archived_at IS NULL
		WHERE i.org_id = $1 AND i.issuer = $2 AND i.subject = $3 AND NOT sametick.org_archived($1)`
	findByEmail = `SELECT r.id, r.name, sametick.user_scopes($1, r.id) FROM sametick.credentials c
		JOIN sametick.records r ON r.org_id = $1 AND r.type = 'user' AND r.id = c.user_id AND r.archived_at IS NULL
		WHERE c.org_id = $1 AND lower(c.email) = lower($2) AND NOT sametick.org_archived($1)`
	insertLink = `INSERT INTO sametick.external_identities (org_id, issuer, subject, user_id) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`
)

// FindLinked implements identity.Links.
func (s *Store) FindLinked(ctx context.Context, orgID int64, issuer, subject string) (u identity.User, err error) {
	b := batch(orgID)
	b.Queue(findLinked, orgID, issuer, subject)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) (err error) {
		u, err = readUser(results.QueryRow(), orgID)
		return err
	})
	return u, pg.Translate(err)
}

func readUser(row pgx.Row, orgID int64) (identity.User, error) {
	u := identity.User{OrgID: orgID}
	var scopes []string
	err := row.Scan(&u.ID, &u.Name, &scopes)
	u.Scopes = auth.ScopesOf(scopes...)
	return u, err
}

// Link implements identity.Links. Of two first uses at once the second finds the first's link.
func (s *Store) Link(ctx context.Context, call records.Call, issuer, subject, email string) (u identity.User, err error) {
	made := false
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		b := transaction(call.OrgID, "BEGIN")
		b.Queue(findByEmail, call.OrgID, email)
		err := send(ctx, c, b, 2, func(results pgx.BatchResults) (err error) {
			u, err = readUser(results.QueryRow(), call.OrgID)
			return err
		})
		if err != nil {
			return err
		}
		tag, err := c.Exec(ctx, insertLink, call.OrgID, issuer, subject, u.ID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		made = true
		call.ActorID = &u.ID
		end := &pgx.Batch{}
		if err := queueEvents(end, call, userEvent(call.OrgID, u.ID, u.Name, "identity_linked", extra("issuer", issuer))); err != nil {
			return err
		}
		return commit(ctx, c, end)
	})
	if err == nil && !made {
		return s.FindLinked(ctx, call.OrgID, issuer, subject)
	}
	return u, pg.Translate(err)
}
