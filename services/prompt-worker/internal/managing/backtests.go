package managing

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/prompt-worker/internal/backtest"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// Backtest queues one of a version of the hook's template; version 0 is the newest. Errors: reasons HOOK_NOT_FOUND,
// ARCHIVED, HOOK_HAS_NO_TEMPLATE, VERSION_UNKNOWN, TOO_MANY_BACKTESTS.
func (s *Service) Backtest(ctx context.Context, call hooks.Call, id int64, version int, r backtest.Request) (*backtest.Backtest, error) {
	f := &faults{}
	f.id("id", id)
	if version < 0 {
		f.add("template_version", "OUT_OF_RANGE", "a version, from 1, or 0 for the newest")
	}
	if r.Events == 0 {
		r.Events = backtest.DefaultEvents
	}
	f.between("events", r.Events, 1, backtest.MaxEvents)
	f.text("model", r.Model, 0, maxModel)
	if r.ProviderID < 0 {
		f.add("provider_id", "OUT_OF_RANGE", "an id, or 0 for the hook's own")
	}
	for _, limit := range []*int64{r.Budget.Runs, r.Budget.Tokens, r.Budget.Cost} {
		if limit != nil && *limit < 0 {
			f.add("budget", "OUT_OF_RANGE", "0 or more")
			break
		}
	}
	if err := f.result(); err != nil {
		return nil, err
	}
	h, err := s.Store.GetHook(ctx, call.OrgID, id)
	switch {
	case err != nil:
		return nil, err
	case h.ArchivedAt != nil:
		return nil, errs.New(errs.FailedPrecondition, "ARCHIVED", "the hook is archived")
	case h.TemplateID == 0:
		return nil, errs.New(errs.FailedPrecondition, "HOOK_HAS_NO_TEMPLATE", "a hook of rules alone has no versions: try it with a dry run")
	}
	t, err := s.Store.GetTemplate(ctx, call.OrgID, h.TemplateID)
	if err != nil {
		return nil, err
	}
	if t.ArchivedAt != nil {
		return nil, errs.New(errs.FailedPrecondition, "ARCHIVED", "the hook's template is archived")
	}
	if version == 0 {
		version = t.Latest
	}
	if version > t.Latest {
		return nil, prompting.ErrNoVersion
	}
	set := r.With(h.Settings, version)
	if err := s.references(ctx, f, call.OrgID, &set, []string{"provider_id"}); err != nil {
		return nil, err
	}
	if err := f.result(); err != nil {
		return nil, err
	}
	b := &backtest.Backtest{OrgID: call.OrgID, HookID: id, HookVersion: h.Version, TemplateID: h.TemplateID, TemplateVersion: version, Request: r, Settings: set}
	if b.ID, err = s.Store.NewID(ctx); err != nil {
		return nil, err
	}
	return s.Store.CreateBacktest(ctx, call, b)
}

// GetBacktest gives one, as far as it is.
func (s *Service) GetBacktest(ctx context.Context, orgID, id int64) (*backtest.Backtest, error) {
	if err := one(id); err != nil {
		return nil, err
	}
	return s.Store.GetBacktest(ctx, orgID, id)
}

// Backtests lists them, of one hook or of all.
func (s *Service) Backtests(ctx context.Context, orgID int64, hookID *int64, q Query) ([]*backtest.Backtest, int64, *string, error) {
	return listed(q, func(p store.Page) ([]*backtest.Backtest, int64, error) {
		return s.Store.ListBacktests(ctx, orgID, hookID, p)
	},
		func(b *backtest.Backtest) int64 { return b.ID })
}

// CancelBacktest ends one.
func (s *Service) CancelBacktest(ctx context.Context, call hooks.Call, id int64) (*backtest.Backtest, error) {
	if err := one(id); err != nil {
		return nil, err
	}
	return s.Store.CancelBacktest(ctx, call, id)
}

// wanting says which backtests a move of a label wants.
func wanting(hookIDs []int64, version int) error {
	names := make([]string, len(hookIDs))
	for i, id := range hookIDs {
		names[i] = strconv.FormatInt(id, 10)
	}
	text := fmt.Sprintf("the label is protected: backtest version %d for each of the hooks %s first (POST /api/prompts/hooks/%s:backtest with template_version %d), or force the move",
		version, strings.Join(names, ", "), names[0], version)
	return errs.New(errs.FailedPrecondition, prompting.ErrUntested.Reason, text).WithMeta("hook_ids", strings.Join(names, ","))
}
