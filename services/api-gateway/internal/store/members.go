package store

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

const (
	insertCredentials = `INSERT INTO sametick.credentials (org_id, user_id, email, password_hash) VALUES ($1, $2, $3, $4)`
	setEmail          = `UPDATE sametick.credentials SET email = $3 WHERE org_id = $1 AND user_id = $2`
	insertUserRoles   = `INSERT INTO sametick.user_roles (org_id, user_id, role_id)
		SELECT org_id, $2, id FROM sametick.roles WHERE org_id = $1 AND id = ANY($3) ON CONFLICT DO NOTHING`
	deleteUserRoles = `DELETE FROM sametick.user_roles WHERE org_id = $1 AND user_id = $2 AND role_id <> ALL($3)`

	memberColumns = `SELECT r.id, r.name, c.email,
		c.password_hash <> '' OR EXISTS (SELECT FROM sametick.external_identities i WHERE i.org_id = $1 AND i.user_id = r.id),
		ARRAY(SELECT ur.role_id FROM sametick.user_roles ur
			JOIN sametick.records q ON q.org_id = $1 AND q.type = 'role' AND q.id = ur.role_id AND q.archived_at IS NULL
			WHERE ur.org_id = $1 AND ur.user_id = r.id ORDER BY 1),
		sametick.user_scopes($1, r.id), r.version, r.created_at, r.updated_at, r.archived_at`
	members = ` FROM sametick.records r JOIN sametick.credentials c ON c.org_id = r.org_id AND c.user_id = r.id
		WHERE r.org_id = $1 AND r.type = 'user'`
	getMember    = memberColumns + members + ` AND r.id = $2`
	countMembers = `SELECT count(*)` + members + ` AND ($2 OR r.archived_at IS NULL)`
	listMembers  = memberColumns + members + ` AND ($2 OR r.archived_at IS NULL) ORDER BY r.created_at DESC, r.id DESC LIMIT $3 OFFSET $4`

	emailKey          = "credentials_email_key"
	lastAdministrator = "last_administrator"
)

func userEvent(orgID, userID int64, name, action string, more json.RawMessage) outbox.Event {
	return outbox.Event{OrgID: orgID, AggregateType: "user", AggregateID: userID, Action: action, RecordName: name, Extra: more}
}

// CreateMember implements identity.Members.
func (s *Store) CreateMember(ctx context.Context, call records.Call, m identity.Member, passwordHash string, token *identity.UserToken) (identity.Member, error) {
	var err error
	if m.ID, err = s.ids.next(ctx); err != nil {
		return m, err
	}
	b := batch(call.OrgID)
	if err := queueCreate(b, call, records.Record{Type: "user", ID: m.ID, Name: m.Name, Attributes: []byte("{}")}, records.Names{}); err != nil {
		return m, err
	}
	b.Queue(insertCredentials, call.OrgID, m.ID, m.Email, passwordHash)
	b.Queue(insertUserRoles, call.OrgID, m.ID, m.Roles)
	if token != nil {
		queueToken(b, call.OrgID, m.ID, *token)
		invited := userEvent(call.OrgID, m.ID, m.Name, "invited", extra("email", m.Email, "expires_at", token.Expires.UTC()))
		if err := queueEvents(b, call, invited); err != nil {
			return m, err
		}
	}
	err = s.write(ctx, b, func(results pgx.BatchResults) error {
		made, err := readRecord(results.QueryRow(), call.OrgID)
		m.CreatedAt, m.UpdatedAt = made.CreatedAt, made.UpdatedAt
		return err
	})
	m.SignsIn = passwordHash != ""
	return m, memberFault(err)
}

// memberFault says what a violated rule about users means.
func memberFault(err error) error {
	switch {
	case pg.IsUnique(err, emailKey):
		return errs.New(errs.AlreadyExists, "EMAIL_TAKEN", "a user has this email address already").WithCause(err).
			WithField("email", "TAKEN", "an address of no other user")
	case isLastAdministrator(err):
		return errLastAdministrator(err)
	default:
		return pg.Translate(err)
	}
}

func isLastAdministrator(err error) bool { return pg.Constraint(err) == lastAdministrator }

func errLastAdministrator(cause error) error {
	return errs.New(errs.FailedPrecondition, "LAST_ADMINISTRATOR", "the organisation would be left without an administrator").WithCause(cause)
}

// GetMember implements identity.Members.
func (s *Store) GetMember(ctx context.Context, orgID, id int64) (m identity.Member, err error) {
	b := batch(orgID)
	b.Queue(getMember, orgID, id)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) (err error) {
		m, err = readMember(results.QueryRow())
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return m, records.ErrNotFound("user", id)
	}
	return m, pg.Translate(err)
}

// ListMembers implements identity.Members.
func (s *Store) ListMembers(ctx context.Context, orgID int64, p paging.Page, archived bool) (list []identity.Member, total int64, err error) {
	err = s.read(ctx, orgID, func(b *pgx.Batch) {
		b.Queue(countMembers, orgID, archived)
		b.Queue(listMembers, orgID, archived, p.Limit, p.Offset)
	}, func(results pgx.BatchResults) error {
		if err := results.QueryRow().Scan(&total); err != nil {
			return err
		}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (identity.Member, error) { return readMember(row) })
		return err
	})
	return list, total, err
}

func readMember(row pgx.Row) (m identity.Member, err error) {
	var scopes []string
	err = row.Scan(&m.ID, &m.Name, &m.Email, &m.SignsIn, &m.Roles, &scopes, &m.Version, &m.CreatedAt, &m.UpdatedAt, &m.ArchivedAt)
	m.Scopes = auth.ScopesOf(scopes...)
	return m, err
}

// ChangeMember implements identity.Members.
func (s *Store) ChangeMember(ctx context.Context, call records.Call, id int64, decide func(context.Context, identity.Member) (*identity.MemberChange, error)) (m identity.Member, err error) {
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		current, err := lock(ctx, c, call, lockRecord, "user", id, records.Refs{})
		if err != nil {
			return err
		}
		m, err = readMember(c.QueryRow(ctx, getMember, call.OrgID, id))
		if errors.Is(err, pgx.ErrNoRows) {
			return records.ErrNotFound("user", id)
		}
		if err != nil {
			return err
		}
		// On this connection: who holds one must not wait for another.
		change, err := decide(context.WithValue(ctx, unitKey{}, c), m)
		if err != nil || change == nil {
			return err
		}
		b := &pgx.Batch{}
		if err := queueNamed(b, call, &current, change.Next.Name, change.Changes); err != nil {
			return err
		}
		b.Queue(setEmail, call.OrgID, id, change.Next.Email)
		b.Queue(deleteUserRoles, call.OrgID, id, change.Next.Roles)
		b.Queue(insertUserRoles, call.OrgID, id, change.Next.Roles)
		m = change.Next
		m.Version, m.UpdatedAt = current.Version, current.UpdatedAt
		return commit(ctx, c, b)
	})
	return m, memberFault(err)
}

// queueNamed queues the update of a locked record's name and version, and its events. It moves current on.
func queueNamed(b *pgx.Batch, call records.Call, current *records.Current, name string, changes json.RawMessage) error {
	current.Name, current.UpdatedAt = name, current.Now
	current.Version++
	next := current.Record
	b.Queue(updateRecord, call.OrgID, next.Type, next.ID, next.Name, string(next.Attributes), next.Version, next.WorkflowID, next.StepID,
		next.UpdatedAt, next.ArchivedAt)
	return queueChange(b, call, &records.Change{Operation: event.Update, Next: next, Names: current.Names, Changes: changes})
}
