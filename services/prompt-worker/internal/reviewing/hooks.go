// Package reviewing gives package review what it asks for: hooks as they are stored, models within their budgets, and a
// place to keep runs. The judging itself is review's.
package reviewing

import (
	"context"
	"sync"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// maxOrgs bounds the organisations that are remembered; when they are more it begins again empty.
const maxOrgs = 10_000

// Hooks implements review.Hooks. It remembers an organisation's hooks for as long as their generation stands, which each
// call names or asks the database for. Safe for concurrent use.
type Hooks struct {
	store    *store.Store
	compiler *runs.Compiler

	mu    sync.Mutex
	known map[int64]*set
}

type set struct {
	generation int64
	hooks      []*review.Hook
	setups     map[int64]*hooks.Setup
}

// NewHooks makes it.
func NewHooks(s *store.Store, c *runs.Compiler) *Hooks {
	return &Hooks{store: s, compiler: c, known: map[int64]*set{}}
}

// ReviewHooks implements review.Hooks.
func (h *Hooks) ReviewHooks(ctx context.Context, orgID int64, generation *int64) ([]*review.Hook, error) {
	known := h.find(orgID)
	// The round trip that asks is most of what a review by rules takes. Whoever writes insists on the generation.
	if known != nil && generation != nil && known.generation == *generation {
		return known.hooks, nil
	}
	now, err := h.store.Generation(ctx, orgID)
	if err != nil {
		return nil, err
	}
	if known != nil && known.generation == now {
		return known.hooks, nil
	}
	fresh, err := h.load(ctx, orgID)
	if err != nil {
		return nil, err
	}
	return fresh.hooks, nil
}

func (h *Hooks) find(orgID int64) *set {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known[orgID]
}

// setup gives what a hook runs by.
func (h *Hooks) setup(ctx context.Context, orgID, id int64) (*hooks.Setup, error) {
	if known := h.find(orgID); known != nil && known.setups[id] != nil {
		return known.setups[id], nil
	}
	return h.store.GetSetup(ctx, orgID, id)
}

func (h *Hooks) load(ctx context.Context, orgID int64) (*set, error) {
	list, generation, err := h.store.ReviewSetups(ctx, orgID)
	if err != nil {
		return nil, err
	}
	fresh := &set{generation: generation, setups: map[int64]*hooks.Setup{}}
	for _, s := range list {
		fresh.hooks = append(fresh.hooks, h.hook(s))
		fresh.setups[s.ID] = s
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.known) >= maxOrgs {
		clear(h.known)
	}
	// Two replies can cross: the older one must not stay.
	if known := h.known[orgID]; known == nil || known.generation <= generation {
		h.known[orgID] = fresh
	}
	return fresh, nil
}

// hook makes a stored hook ready. What of it cannot be used makes it fail each time: it must not look as if it had
// nothing to say.
func (h *Hooks) hook(s *hooks.Setup) *review.Hook {
	out := &review.Hook{
		ID: s.ID, Name: s.Name, Revision: s.Version, ProviderID: s.ProviderID, Parameters: s.Parameters, Timeout: s.Timeout(),
		FailClosed: s.FailurePolicy != hooks.FailOpen, Enforcement: s.Enforcement, CandidatePercentage: s.CandidatePercentage,
	}
	for _, text := range s.EventTypes {
		if p, ok := event.ParsePattern(text); ok {
			out.Patterns = append(out.Patterns, p)
		}
	}
	var err error
	if out.Rules, err = h.compiler.Rules(&s.Hook); err != nil {
		out.Broken = &prompting.ModelError{Cause: prompting.CauseCondition, Text: err.Error()}
	}
	if s.Template == nil {
		return out
	}
	broken := &prompting.ModelError{Cause: prompting.CauseTemplate, Text: "the template has no version or label that the hook names"}
	number, err := s.Template.Resolve(s.TemplateVersion, s.TemplateLabel)
	if err == nil {
		out.Stable = h.version(s, number)
	}
	if s.CandidateVersion > 0 {
		out.Candidate = h.version(s, s.CandidateVersion)
	}
	if out.Stable == nil || s.CandidateVersion > 0 && out.Candidate == nil {
		out.Broken = broken
	}
	if len(s.Providers) > 0 {
		out.Model = runs.ModelOf(&s.Hook, &s.Providers[0])
	}
	return out
}

// version is nil for one that cannot be used.
func (h *Hooks) version(s *hooks.Setup, number int) *review.Version {
	v := s.Versions[number]
	if v == nil {
		return nil
	}
	t, err := h.compiler.Template(s.OrgID, v)
	if err != nil {
		return nil
	}
	return &review.Version{Number: number, Template: t}
}
