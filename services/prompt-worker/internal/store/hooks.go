package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
)

const (
	insertHook = `INSERT INTO sametick.prompt_hooks (org_id, id, settings) VALUES ($1, $2, $3)`
	updateHook = `UPDATE sametick.prompt_hooks SET settings = $3, version = version + 1, updated_at = date_trunc('milliseconds', now()),
  archived_at = CASE WHEN $4 THEN date_trunc('milliseconds', now()) END WHERE org_id = $1 AND id = $2`
	forUpdate = ` FOR UPDATE`

	keepReviewHook = `
INSERT INTO sametick.review_hooks (org_id, hook_id, name, event_types, failure_policy, enforcement, timeout_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (org_id, hook_id) DO UPDATE SET name = excluded.name, event_types = excluded.event_types, failure_policy = excluded.failure_policy,
  enforcement = excluded.enforcement, timeout_ms = excluded.timeout_ms`
	dropReviewHook = `DELETE FROM sametick.review_hooks WHERE org_id = $1 AND hook_id = $2`
	// touchReviewHooks counts a change of what hooks run by as one of theirs: nobody's memory of them holds any more.
	touchReviewHooks = `
UPDATE sametick.review_hooks r SET name = r.name FROM sametick.prompt_hooks h WHERE r.org_id = $1 AND h.org_id = r.org_id AND h.id = r.hook_id
  AND (h.template_id = $2 AND $2 <> 0 OR $3 <> 0 AND ($3 = (h.settings->>'provider_id')::bigint OR h.settings->'fallback_provider_ids' @> to_jsonb($3)))`
)

// CreateHook keeps a hook under an id of NewID, with its events. Its settings are valid: see hooks.Check.
func (s *Store) CreateHook(ctx context.Context, call hooks.Call, id int64, set hooks.Settings) (h *hooks.Hook, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertHook, call.OrgID, id, asJSON(set)); err != nil {
			return err
		}
		h, err = one(ctx, tx, readHook, errNoHook, hookByID, call.OrgID, id)
		if err != nil {
			return err
		}
		return hookChanged(ctx, tx, call, event.Create, nil, h)
	})
	return h, err
}

// hookChanged records a change, and keeps what api-gateway knows of a hook that reviews.
func hookChanged(ctx context.Context, tx pgx.Tx, call hooks.Call, operation string, before, after *hooks.Hook) error {
	o := object{typ: hooks.TypeHook, id: after.ID, name: after.Name}
	var err error
	if before != nil {
		if o.before, err = hookFields(before); err != nil {
			return err
		}
	}
	if o.after, err = hookFields(after); err != nil {
		return err
	}
	if err := record(ctx, tx, call, operation, o); err != nil {
		return err
	}
	reviewed := before != nil && before.Mode == hooks.ModeReview && before.InForce()
	switch {
	case after.Mode == hooks.ModeReview && after.InForce():
		_, err = tx.Exec(ctx, keepReviewHook, after.OrgID, after.ID, after.Name, after.EventTypes, after.FailurePolicy, after.Enforcement, after.Timeout().Milliseconds())
	case reviewed:
		_, err = tx.Exec(ctx, dropReviewHook, after.OrgID, after.ID)
	}
	return err
}

func hookFields(h *hooks.Hook) (map[string]any, error) {
	out, err := fields(h.Settings)
	if err == nil {
		out["archived_at"] = timeOrNil(h.ArchivedAt)
	}
	return out, err
}

func timeOrNil(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UTC().Format(event.TimeLayout)
}

// UpdateHook changes a hook: change gets it as it is, locked, and gives its new settings. A version that is not nil
// must be the hook's. Errors: reasons HOOK_NOT_FOUND, ARCHIVED, VERSION_MISMATCH, and change's.
func (s *Store) UpdateHook(ctx context.Context, call hooks.Call, id int64, version *int64, change func(hooks.Hook) (hooks.Settings, error)) (*hooks.Hook, error) {
	return s.changeHook(ctx, call, id, version, event.Update, change)
}

// ArchiveHook ends a hook for good. One that is archived stays as it is. Errors: as UpdateHook.
func (s *Store) ArchiveHook(ctx context.Context, call hooks.Call, id int64, version *int64) (*hooks.Hook, error) {
	return s.changeHook(ctx, call, id, version, event.Archive, func(h hooks.Hook) (hooks.Settings, error) { return h.Settings, nil })
}

func (s *Store) changeHook(ctx context.Context, call hooks.Call, id int64, version *int64, operation string, change func(hooks.Hook) (hooks.Settings, error)) (h *hooks.Hook, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		before, err := one(ctx, tx, readHook, errNoHook, hookByID+forUpdate, call.OrgID, id)
		if err != nil {
			return err
		}
		if err := checkVersion(version, before.Version); err != nil {
			return err
		}
		if before.ArchivedAt != nil {
			if h = before; operation == event.Archive {
				return nil
			}
			return errArchived
		}
		set, err := change(*before)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, updateHook, call.OrgID, id, asJSON(set), operation == event.Archive); err != nil {
			return err
		}
		if h, err = one(ctx, tx, readHook, errNoHook, hookByID, call.OrgID, id); err != nil {
			return err
		}
		return hookChanged(ctx, tx, call, operation, before, h)
	})
	return h, err
}

// GetHook gives one. Errors: reason HOOK_NOT_FOUND.
func (s *Store) GetHook(ctx context.Context, orgID, id int64) (h *hooks.Hook, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		h, err = one(ctx, tx, readHook, errNoHook, hookByID, orgID, id)
		return err
	})
	return h, err
}

// ListHooks gives a page, and how many there are.
func (s *Store) ListHooks(ctx context.Context, orgID int64, p Page) ([]*hooks.Hook, int64, error) {
	return list(ctx, s, orgID, p, readHook, hookColumns, `sametick.prompt_hooks h`)
}

// GetSetup gives a hook with what it runs by. Errors: reason HOOK_NOT_FOUND.
func (s *Store) GetSetup(ctx context.Context, orgID, id int64) (set *hooks.Setup, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		if set, err = loadSetup(ctx, tx, orgID, id); err == nil && set == nil {
			err = errNoHook
		}
		return err
	})
	return set, err
}
