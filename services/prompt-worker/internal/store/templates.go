package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

const (
	insertTemplate = `INSERT INTO sametick.prompt_templates (org_id, id, name, description) VALUES ($1, $2, $3, $4)`
	updateTemplate = `UPDATE sametick.prompt_templates SET latest = $3, labels = $4, updated_at = date_trunc('milliseconds', now()),
  archived_at = CASE WHEN $5 THEN date_trunc('milliseconds', now()) END WHERE org_id = $1 AND id = $2`
	insertVersion = `INSERT INTO sametick.prompt_template_versions (org_id, template_id, version, messages, variables, note) VALUES ($1, $2, $3, $4, coalesce($5::jsonb, '[]'), $6)`
	listVersions  = versionsFrom + ` WHERE v.org_id = $1 AND v.template_id = $2 ORDER BY v.version DESC`
	followers     = hookColumns + ` FROM sametick.prompt_hooks h WHERE h.org_id = $1 AND h.template_id = $2 AND h.archived_at IS NULL AND h.settings->>'template_label' = $3 ORDER BY h.id`
)

// CreateTemplate keeps a template with its version 1, under an id of NewID. The version is valid: see prompting.Compile.
func (s *Store) CreateTemplate(ctx context.Context, call hooks.Call, id int64, name, description string, v prompting.Version) (t *hooks.Template, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertTemplate, call.OrgID, id, name, description); err != nil {
			return err
		}
		if err := addVersion(ctx, tx, call.OrgID, id, 1, v, ""); err != nil {
			return err
		}
		if t, err = one(ctx, tx, readTemplate, errNoTemplate, templateByID, call.OrgID, id); err != nil {
			return err
		}
		return record(ctx, tx, call, event.Create, object{typ: hooks.TypeTemplate, id: id, name: name, after: templateFields(t)})
	})
	return t, err
}

func addVersion(ctx context.Context, tx pgx.Tx, orgID, id int64, number int, v prompting.Version, note string) error {
	_, err := tx.Exec(ctx, insertVersion, orgID, id, number, asJSON(v.Messages), asJSON(v.Variables), note)
	return err
}

func templateFields(t *hooks.Template) map[string]any {
	labels := map[string]any{}
	for name, l := range t.Named {
		labels[name] = l.Version
	}
	return map[string]any{"name": t.Name, "description": t.Description, "latest": t.Latest, "labels": labels, "archived_at": timeOrNil(t.ArchivedAt)}
}

// AddVersion gives a template its next version. Errors: reasons TEMPLATE_NOT_FOUND, ARCHIVED.
func (s *Store) AddVersion(ctx context.Context, call hooks.Call, id int64, v prompting.Version, note string) (made *hooks.Version, err error) {
	_, err = s.changeTemplate(ctx, call, id, event.Update, func(tx pgx.Tx, t *hooks.Template) error {
		t.Latest++
		if err := addVersion(ctx, tx, call.OrgID, id, t.Latest, v, note); err != nil {
			return err
		}
		made, err = one(ctx, tx, readVersion, prompting.ErrNoVersion, versionsByID, call.OrgID, id, []int{t.Latest})
		return err
	})
	return made, err
}

// MoveLabel sets a label. untested is asked which of the hooks that follow it lack a backtest; the event of a forced move
// names them. Errors: those of prompting.Labels.Set, and as AddVersion.
func (s *Store) MoveLabel(ctx context.Context, call hooks.Call, id int64, m prompting.Move, untested func(context.Context, Tx, []*hooks.Hook) ([]int64, error)) (*hooks.Template, error) {
	return s.changeTemplate(ctx, call, id, event.Update, func(tx pgx.Tx, t *hooks.Template) error {
		following, err := many(ctx, tx, readHook, followers, call.OrgID, id, m.Label)
		if err != nil {
			return err
		}
		missing, err := untested(ctx, tx, following)
		if err != nil {
			return err
		}
		m.Tested = len(missing) == 0
		t.Labels, err = t.Set(m)
		if m.Force {
			t.Forced = &hooks.Forced{Label: m.Label, HooksWithoutBacktest: append([]int64{}, missing...)}
		}
		return err
	})
}

// ArchiveTemplate ends a template. Hooks that are bound to it fail from now on. Errors: reason TEMPLATE_NOT_FOUND.
func (s *Store) ArchiveTemplate(ctx context.Context, call hooks.Call, id int64) (*hooks.Template, error) {
	return s.changeTemplate(ctx, call, id, event.Archive, func(pgx.Tx, *hooks.Template) error { return nil })
}

func (s *Store) changeTemplate(ctx context.Context, call hooks.Call, id int64, operation string, change func(pgx.Tx, *hooks.Template) error) (t *hooks.Template, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		if t, err = one(ctx, tx, readTemplate, errNoTemplate, templateByID+forUpdate, call.OrgID, id); err != nil {
			return err
		}
		if t.ArchivedAt != nil {
			if operation == event.Archive {
				return nil
			}
			return errArchived
		}
		before := templateFields(t)
		if err := change(tx, t); err != nil {
			return err
		}
		named := t.Named
		if named == nil {
			named = map[string]prompting.Label{}
		}
		if _, err := tx.Exec(ctx, updateTemplate, call.OrgID, id, t.Latest, asJSON(named), operation == event.Archive); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, touchReviewHooks, call.OrgID, id, int64(0)); err != nil {
			return err
		}
		forced := t.Forced
		if t, err = one(ctx, tx, readTemplate, errNoTemplate, templateByID, call.OrgID, id); err != nil {
			return err
		}
		o := object{typ: hooks.TypeTemplate, id: id, name: t.Name, before: before, after: templateFields(t)}
		if forced != nil {
			o.extra = map[string]any{"forced": forced}
		}
		return record(ctx, tx, call, operation, o)
	})
	return t, err
}

// GetTemplate gives one. Errors: reason TEMPLATE_NOT_FOUND.
func (s *Store) GetTemplate(ctx context.Context, orgID, id int64) (t *hooks.Template, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		t, err = one(ctx, tx, readTemplate, errNoTemplate, templateByID, orgID, id)
		return err
	})
	return t, err
}

// ListTemplates gives a page, and how many there are.
func (s *Store) ListTemplates(ctx context.Context, orgID int64, p Page) ([]*hooks.Template, int64, error) {
	return list(ctx, s, orgID, p, readTemplate, templateColumns, `sametick.prompt_templates t`)
}

// GetVersion gives a template's version. Errors: reason VERSION_UNKNOWN.
func (s *Store) GetVersion(ctx context.Context, orgID, id int64, number int) (v *hooks.Version, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		v, err = one(ctx, tx, readVersion, prompting.ErrNoVersion, versionsByID, orgID, id, []int{number})
		return err
	})
	return v, err
}

// ListVersions gives a template's versions, newest first.
func (s *Store) ListVersions(ctx context.Context, orgID, id int64) (out []*hooks.Version, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		out, err = many(ctx, tx, readVersion, listVersions, orgID, id)
		return err
	})
	return out, err
}
