package managing

import (
	"context"
	"errors"
	"slices"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// hookFields are the fields that an update may name: all but the mode, whose runs are of another kind.
func hookFields() []string {
	return []string{"name", "event_types", "condition", "rules", "template_id", "template_version", "template_label", "candidate_version",
		"candidate_percentage", "provider_id", "fallback_provider_ids", "model", "parameters", "output_schema", "tools", "timeout_ms",
		"failure_policy", "enforcement", "budget", "enabled"}
}

// withDefaults fills in what was left out.
func withDefaults(set hooks.Settings) hooks.Settings {
	if set.FailurePolicy == "" {
		set.FailurePolicy = hooks.FailClosed
	}
	if set.Enforcement == "" {
		set.Enforcement = hooks.Enforce
	}
	return set
}

// CreateHook makes a hook. A review hook is in force for the next write.
func (s *Service) CreateHook(ctx context.Context, call hooks.Call, set hooks.Settings) (*hooks.Hook, error) {
	set = withDefaults(set)
	if err := s.check(ctx, call.OrgID, &set, hookFields()); err != nil {
		return nil, err
	}
	id, err := s.Store.NewID(ctx)
	if err != nil {
		return nil, err
	}
	return s.Store.CreateHook(ctx, call, id, set)
}

// Hook gives one, also an archived one.
func (s *Service) Hook(ctx context.Context, orgID, id int64) (*hooks.Hook, error) {
	if err := one(id); err != nil {
		return nil, err
	}
	return s.Store.GetHook(ctx, orgID, id)
}

// Hooks lists them.
func (s *Service) Hooks(ctx context.Context, orgID int64, q Query) ([]*hooks.Hook, int64, *string, error) {
	return listed(q, func(p store.Page) ([]*hooks.Hook, int64, error) { return s.Store.ListHooks(ctx, orgID, p) },
		func(h *hooks.Hook) int64 { return h.ID })
}

// errMoved says that a hook was changed while a change of it was checked.
var errMoved = errors.New("managing: the hook has moved")

// UpdateHook changes the fields that the mask names. The whole is checked as it will be, but for references that stay.
func (s *Service) UpdateHook(ctx context.Context, call hooks.Call, id int64, version *int64, mask []string, set hooks.Settings) (*hooks.Hook, error) {
	f := &faults{}
	f.id("id", id)
	f.version(version)
	f.mask(mask, hookFields()...)
	if err := f.result(); err != nil {
		return nil, err
	}
	for {
		now, err := s.Store.GetHook(ctx, call.OrgID, id)
		if err != nil {
			return nil, err
		}
		next := withDefaults(merged(now.Settings, set, mask))
		if err := s.check(ctx, call.OrgID, &next, mask); err != nil && now.ArchivedAt == nil && (version == nil || *version == now.Version) {
			return nil, err
		}
		h, err := s.Store.UpdateHook(ctx, call, id, version, func(h hooks.Hook) (hooks.Settings, error) {
			if h.Version != now.Version {
				return h.Settings, errMoved
			}
			return next, nil
		})
		if !errors.Is(err, errMoved) {
			return h, err
		}
	}
}

// merged gives the settings with the fields of others that the mask names.
func merged(to, from hooks.Settings, mask []string) hooks.Settings {
	for field, set := range map[string]func(){
		"name": func() { to.Name = from.Name }, "event_types": func() { to.EventTypes = from.EventTypes },
		"condition": func() { to.Condition = from.Condition }, "rules": func() { to.Rules = from.Rules },
		"template_id": func() { to.TemplateID = from.TemplateID }, "template_version": func() { to.TemplateVersion = from.TemplateVersion },
		"template_label": func() { to.TemplateLabel = from.TemplateLabel }, "candidate_version": func() { to.CandidateVersion = from.CandidateVersion },
		"candidate_percentage": func() { to.CandidatePercentage = from.CandidatePercentage }, "provider_id": func() { to.ProviderID = from.ProviderID },
		"fallback_provider_ids": func() { to.FallbackProviderIDs = from.FallbackProviderIDs }, "model": func() { to.Model = from.Model },
		"parameters": func() { to.Parameters = from.Parameters }, "output_schema": func() { to.OutputSchema = from.OutputSchema },
		"tools": func() { to.Tools = from.Tools }, "timeout_ms": func() { to.TimeoutMS = from.TimeoutMS },
		"failure_policy": func() { to.FailurePolicy = from.FailurePolicy }, "enforcement": func() { to.Enforcement = from.Enforcement },
		"budget": func() { to.Budget = from.Budget }, "enabled": func() { to.Enabled = from.Enabled },
	} {
		if slices.Contains(mask, field) {
			set()
		}
	}
	return to
}

// ArchiveHook ends one: a review hook for the next write, an async hook's runs that wait too.
func (s *Service) ArchiveHook(ctx context.Context, call hooks.Call, id int64, version *int64) (*hooks.Hook, error) {
	f := &faults{}
	f.id("id", id)
	f.version(version)
	if err := f.result(); err != nil {
		return nil, err
	}
	return s.Store.ArchiveHook(ctx, call, id, version)
}
