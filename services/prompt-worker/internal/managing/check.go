package managing

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// check refuses settings that cannot work: those that contradict themselves, CEL and schemas that are none, and names of
// what is not there. References are looked up where the mask names them.
func (s *Service) check(ctx context.Context, orgID int64, set *hooks.Settings, mask []string) error {
	f := &faults{}
	err := errors.Join(f.take(hooks.Check(set)), f.cel(s, set))
	if !isNull(set.OutputSchema) {
		_, invalid := prompting.CompileOutput(set.OutputSchema)
		err = errors.Join(err, f.take(invalid))
	}
	f.text("model", set.Model, 0, maxModel)
	if p, err := hooks.ParseParameters(set.Parameters); err == nil && p.Temperature != nil && (*p.Temperature < 0 || *p.Temperature > 2) {
		f.add("parameters.temperature", "OUT_OF_RANGE", "0 to 2")
	}
	if !storable(set.Name) {
		f.add("name", "INVALID_TEXT", "text in UTF-8 without the NUL character (U+0000)")
	}
	f.text("template_label", set.TemplateLabel, 0, maxName)
	if err == nil && set.TemplateID > 0 {
		err = s.references(ctx, f, orgID, set, mask)
	}
	return errors.Join(err, f.result())
}

func isNull(text []byte) bool { return len(text) == 0 || string(text) == "null" }

func (f *faults) cel(s *Service, set *hooks.Settings) error {
	for i, r := range set.Rules {
		if !storable(r.Reason) {
			f.add(fmt.Sprintf("rules[%d].reason", i), "INVALID_TEXT", "text in UTF-8 without the NUL character (U+0000)")
		}
	}
	_, err := prompting.CompileRules(s.Conditions, set.Condition, set.Rules, set.Mode == hooks.ModeReview)
	return f.take(err)
}

// references refuses what is not there, or archived. Another organisation's is not there.
func (s *Service) references(ctx context.Context, f *faults, orgID int64, set *hooks.Settings, mask []string) error {
	named := func(fields ...string) bool {
		return slices.ContainsFunc(fields, func(field string) bool { return slices.Contains(mask, field) })
	}
	if named("template_id", "template_version", "template_label", "candidate_version") {
		t, err := s.Store.GetTemplate(ctx, orgID, set.TemplateID)
		if err = f.missing("template_id", "template", err); err != nil {
			return err
		}
		if t != nil {
			f.template(t, set)
		}
	}
	if named("provider_id", "fallback_provider_ids", "model") {
		for i, id := range append([]int64{set.ProviderID}, set.FallbackProviderIDs...) {
			field := "provider_id"
			if i > 0 {
				field = fmt.Sprintf("fallback_provider_ids[%d]", i-1)
			}
			if id < 1 {
				continue
			}
			p, err := s.Store.GetProvider(ctx, orgID, id)
			if err = f.missing(field, "provider", err); err != nil {
				return err
			}
			switch {
			case p.ID == 0:
			case p.ArchivedAt != nil:
				f.add(field, "ARCHIVED", "a provider that is not archived")
			case p.DefaultModel == "" && (i > 0 || set.Model == ""):
				f.add("model", "REQUIRED", "a model, or providers with a default_model")
			}
		}
	}
	if !named("tools") {
		return nil
	}
	for i, grant := range set.Tools {
		field := fmt.Sprintf("tools[%d].mcp_server_id", i)
		m, err := s.Store.GetServer(ctx, orgID, grant.ServerID)
		if err = f.missing(field, "MCP server", err); err != nil {
			return err
		}
		if m.ArchivedAt != nil {
			f.add(field, "ARCHIVED", "an MCP server that is not archived")
		}
	}
	return nil
}

func (f *faults) template(t *hooks.Template, set *hooks.Settings) {
	if t.ArchivedAt != nil {
		f.add("template_id", "ARCHIVED", "a template that is not archived")
		return
	}
	if _, err := t.Resolve(set.TemplateVersion, set.TemplateLabel); err != nil && (set.TemplateVersion == 0) != (set.TemplateLabel == "") {
		field := map[bool]string{true: "template_label", false: "template_version"}[set.TemplateLabel != ""]
		f.add(field, "NOT_FOUND", "a version or label that the template has")
	}
	if set.CandidateVersion > t.Latest {
		f.add("candidate_version", "NOT_FOUND", "a version that the template has")
	}
}

// missing makes a reference that is not found a fault of its field.
func (f *faults) missing(field, what string, err error) error {
	if errs.KindOf(err) == errs.NotFound {
		f.add(field, "NOT_FOUND", "there is no such %s", what)
		return nil
	}
	return err
}
