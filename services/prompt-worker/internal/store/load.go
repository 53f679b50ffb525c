package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
)

const (
	hookColumns     = `SELECT h.org_id, h.id, h.settings, h.from_position, h.version, h.created_at, h.updated_at, h.archived_at`
	hookByID        = hookColumns + ` FROM sametick.prompt_hooks h WHERE h.org_id = $1 AND h.id = $2`
	templateColumns = `SELECT t.org_id, t.id, t.name, t.description, t.latest, t.labels, t.created_at, t.updated_at, t.archived_at`
	templateByID    = templateColumns + ` FROM sametick.prompt_templates t WHERE t.org_id = $1 AND t.id = $2`
	versionColumns  = `SELECT v.template_id, v.version, v.messages, v.variables, v.note, v.created_at`
	versionsFrom    = versionColumns + ` FROM sametick.prompt_template_versions v`
	versionsByID    = versionsFrom + ` WHERE v.org_id = $1 AND v.template_id = $2 AND v.version = ANY($3)`
	providerColumns = `SELECT p.org_id, p.id, p.name, p.kind, p.base_url, p.default_model, p.key_sealed, p.key_hint, p.concurrency, p.version, p.created_at,
  p.updated_at, p.archived_at`
	providersFrom = providerColumns + ` FROM sametick.prompt_providers p`
	providerByID  = providersFrom + ` WHERE p.org_id = $1 AND p.id = $2`
	providersByID = providersFrom + ` JOIN unnest($2::bigint[]) WITH ORDINALITY u(id, n) ON u.id = p.id WHERE p.org_id = $1 AND p.archived_at IS NULL ORDER BY u.n`
)

func readHook(row pgx.CollectableRow) (*hooks.Hook, error) {
	h := &hooks.Hook{}
	err := row.Scan(&h.OrgID, &h.ID, &h.Settings, &h.FromPosition, &h.Version, &h.CreatedAt, &h.UpdatedAt, &h.ArchivedAt)
	return h, err
}

func readTemplate(row pgx.CollectableRow) (*hooks.Template, error) {
	t := &hooks.Template{}
	err := row.Scan(&t.OrgID, &t.ID, &t.Name, &t.Description, &t.Latest, &t.Named, &t.CreatedAt, &t.UpdatedAt, &t.ArchivedAt)
	return t, err
}

func readVersion(row pgx.CollectableRow) (*hooks.Version, error) {
	v := &hooks.Version{}
	err := row.Scan(&v.TemplateID, &v.Number, &v.Messages, &v.Variables, &v.Note, &v.CreatedAt)
	return v, err
}

func readProvider(row pgx.CollectableRow) (p hooks.Provider, err error) {
	err = row.Scan(&p.OrgID, &p.ID, &p.Name, &p.Kind, &p.BaseURL, &p.DefaultModel, &p.KeySealed, &p.KeyHint, &p.Concurrency, &p.Version,
		&p.CreatedAt, &p.UpdatedAt, &p.ArchivedAt)
	return p, err
}

// one gives the row of a query, or none.
func one[T any](ctx context.Context, tx pgx.Tx, read pgx.RowToFunc[T], none error, sql string, args ...any) (v T, err error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return v, err
	}
	v, err = pgx.CollectExactlyOneRow(rows, read)
	if errors.Is(err, pgx.ErrNoRows) {
		return v, none
	}
	return v, err
}

func many[T any](ctx context.Context, tx pgx.Tx, read pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, read)
}

// queueMany queues a query whose rows go to into.
func queueMany[T any](b *pgx.Batch, into *[]T, read pgx.RowToFunc[T], sql string, args ...any) {
	b.Queue(sql, args...).Query(func(rows pgx.Rows) (err error) {
		*into, err = pgx.CollectRows(rows, read)
		return err
	})
}

var errNone = errors.New("store: no such row")

// loadSetup gives a hook with what it runs by; nil when there is none.
func loadSetup(ctx context.Context, tx pgx.Tx, orgID, id int64) (*hooks.Setup, error) {
	h, err := one(ctx, tx, readHook, errNone, hookByID, orgID, id)
	if errors.Is(err, errNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return setupOf(ctx, tx, h)
}

// setupOf asks for all that does not hang on each other at once.
func setupOf(ctx context.Context, tx pgx.Tx, h *hooks.Hook) (*hooks.Setup, error) {
	s := &hooks.Setup{Hook: *h, Versions: map[int]*hooks.Version{}}
	if h.TemplateID == 0 {
		return s, nil
	}
	b := &pgx.Batch{}
	var templates []*hooks.Template
	queueMany(b, &templates, readTemplate, templateByID, h.OrgID, h.TemplateID)
	queueMany(b, &s.Providers, readProvider, providersByID, h.OrgID, h.Providers())
	if len(h.Tools) > 0 {
		var ids []int64
		for _, grant := range h.Tools {
			ids = append(ids, grant.ServerID)
		}
		queueMany(b, &s.Servers, readServer, serversByID, h.OrgID, ids)
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return nil, err
	}
	if len(templates) == 0 {
		return nil, errNone
	}
	if s.Template = templates[0]; s.Template.ArchivedAt != nil { // its versions are nobody's any more
		s.Providers, s.Servers = nil, nil
		return s, nil
	}
	versions, err := many(ctx, tx, readVersion, versionsByID, h.OrgID, h.TemplateID, h.Wanted(s.Template))
	for _, v := range versions {
		s.Versions[v.Number] = v
	}
	return s, err
}
