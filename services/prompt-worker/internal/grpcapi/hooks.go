package grpcapi

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// hookFields are those that the requests to create and to update share.
type hookFields interface {
	GetName() string
	GetEventTypes() []string
	GetCondition() string
	GetRules() []*promptsv1.Rule
	GetTemplateId() int64
	GetTemplateVersion() int32
	GetTemplateLabel() string
	GetCandidateVersion() int32
	GetCandidatePercentage() int32
	GetProviderId() int64
	GetFallbackProviderIds() []int64
	GetModel() string
	GetParameters() *wirev1.Json
	GetOutputSchema() *wirev1.Json
	GetTools() []*promptsv1.ToolGrant
	GetTimeoutMs() int32
	GetFailurePolicy() string
	GetEnforcement() string
	GetBudget() *promptsv1.Budget
}

// fromHook gives what a request sets. One that does not say so enables the hook.
func fromHook(r hookFields, enabled *bool) hooks.Settings {
	set := hooks.Settings{Name: r.GetName(), EventTypes: r.GetEventTypes(), Condition: r.GetCondition(), TemplateID: r.GetTemplateId(),
		TemplateVersion: int(r.GetTemplateVersion()), TemplateLabel: r.GetTemplateLabel(), CandidateVersion: int(r.GetCandidateVersion()),
		CandidatePercentage: int(r.GetCandidatePercentage()), ProviderID: r.GetProviderId(), FallbackProviderIDs: r.GetFallbackProviderIds(),
		Model: r.GetModel(), Parameters: fromJSON(r.GetParameters()), OutputSchema: fromJSON(r.GetOutputSchema()), TimeoutMS: int(r.GetTimeoutMs()),
		FailurePolicy: r.GetFailurePolicy(), Enforcement: r.GetEnforcement(), Enabled: enabled == nil || *enabled}
	for _, rule := range r.GetRules() {
		set.Rules = append(set.Rules, prompting.Rule{ID: rule.GetId(), Expression: rule.GetExpression(), Reason: rule.GetReason()})
	}
	for _, grant := range r.GetTools() {
		set.Tools = append(set.Tools, hooks.ToolGrant{ServerID: grant.GetMcpServerId(), Tools: grant.GetTools()})
	}
	if b := r.GetBudget(); b != nil {
		set.Budget = prompting.Limits{Runs: b.Runs, Tokens: b.Tokens, Cost: b.Cost}
	}
	return set
}

// CreateHook implements promptsv1.PromptServiceServer.
func (s *Prompts) CreateHook(ctx context.Context, req *promptsv1.CreateHookRequest) (*promptsv1.Hook, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Hook, error) {
		set := fromHook(req, req.Enabled)
		set.Mode = req.GetMode()
		h, err := s.Service.CreateHook(ctx, call, set)
		return to(h, err, toHook)
	})
}

// GetHook implements promptsv1.PromptServiceServer.
func (s *Prompts) GetHook(ctx context.Context, req *promptsv1.GetHookRequest) (*promptsv1.Hook, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Hook, error) {
		h, err := s.Service.Hook(ctx, call.OrgID, req.GetId())
		return to(h, err, toHook)
	})
}

// ListHooks implements promptsv1.PromptServiceServer.
func (s *Prompts) ListHooks(ctx context.Context, req *promptsv1.ListHooksRequest) (*promptsv1.ListHooksResponse, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.ListHooksResponse, error) {
		list, total, next, err := s.Service.Hooks(ctx, call.OrgID, query(req.Limit, req.GetCursor(), req.GetIncludeArchived()))
		if err != nil {
			return nil, err
		}
		return &promptsv1.ListHooksResponse{Data: each(list, toHook), Total: total, NextCursor: next}, nil
	})
}

// UpdateHook implements promptsv1.PromptServiceServer.
func (s *Prompts) UpdateHook(ctx context.Context, req *promptsv1.UpdateHookRequest) (*promptsv1.Hook, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Hook, error) {
		mask := req.GetUpdateMask().GetPaths()
		if req.UpdateMask == nil {
			mask = setFields(req.ProtoReflect())
		}
		h, err := s.Service.UpdateHook(ctx, call, req.GetId(), req.Version, mask, fromHook(req, req.Enabled))
		return to(h, err, toHook)
	})
}

// ArchiveHook implements promptsv1.PromptServiceServer.
func (s *Prompts) ArchiveHook(ctx context.Context, req *promptsv1.ArchiveHookRequest) (*promptsv1.Hook, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Hook, error) {
		h, err := s.Service.ArchiveHook(ctx, call, req.GetId(), req.Version)
		return to(h, err, toHook)
	})
}

// DryRunHook implements promptsv1.PromptServiceServer.
func (s *Prompts) DryRunHook(ctx context.Context, req *promptsv1.DryRunHookRequest) (*promptsv1.Run, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Run, error) {
		r, err := s.Service.DryRun(ctx, call.OrgID, req.GetId(), req.GetEventId())
		return to(r, err, toRun)
	})
}

func toHook(h *hooks.Hook) *promptsv1.Hook {
	m := &promptsv1.Hook{Id: h.ID, Name: h.Name, Mode: h.Mode, EventTypes: h.EventTypes, Condition: h.Condition, TemplateId: h.TemplateID,
		TemplateVersion: int32(h.TemplateVersion), TemplateLabel: h.TemplateLabel, CandidateVersion: int32(h.CandidateVersion),
		CandidatePercentage: int32(h.CandidatePercentage), ProviderId: h.ProviderID, FallbackProviderIds: h.FallbackProviderIDs, Model: h.Model,
		Parameters: toJSON(h.Parameters), OutputSchema: toJSON(h.OutputSchema), TimeoutMs: int32(h.TimeoutMS), FailurePolicy: h.FailurePolicy,
		Enforcement: h.Enforcement, Budget: &promptsv1.Budget{Runs: h.Budget.Runs, Tokens: h.Budget.Tokens, Cost: h.Budget.Cost}, Enabled: h.Enabled,
		Version: h.Version, CreatedAt: timestamppb.New(h.CreatedAt), UpdatedAt: timestamppb.New(h.UpdatedAt), ArchivedAt: stamp(h.ArchivedAt)}
	for _, r := range h.Rules {
		m.Rules = append(m.Rules, &promptsv1.Rule{Id: r.ID, Expression: r.Expression, Reason: r.Reason})
	}
	for _, grant := range h.Tools {
		m.Tools = append(m.Tools, &promptsv1.ToolGrant{McpServerId: grant.ServerID, Tools: grant.Tools})
	}
	return m
}
