package grpcapi

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// ListRuns implements promptsv1.PromptServiceServer.
func (s *Prompts) ListRuns(ctx context.Context, req *promptsv1.ListRunsRequest) (*promptsv1.ListRunsResponse, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.ListRunsResponse, error) {
		list, next, err := s.Service.Runs(ctx, call.OrgID, store.RunFilter{HookID: req.HookId, EventID: req.EventId, AggregateType: req.GetAggregateType(),
			AggregateID: req.AggregateId, Status: req.GetStatus(), Verdict: req.GetVerdict(), Trigger: req.GetTrigger(), From: instant(req.GetFrom()),
			To: instant(req.GetTo())}, req.Limit, req.GetCursor())
		if err != nil {
			return nil, err
		}
		return &promptsv1.ListRunsResponse{Data: each(list, toRun), NextCursor: next}, nil
	})
}

// GetRun implements promptsv1.PromptServiceServer.
func (s *Prompts) GetRun(ctx context.Context, req *promptsv1.GetRunRequest) (*promptsv1.Run, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Run, error) {
		r, err := s.Service.Run(ctx, call.OrgID, req.GetId())
		return to(r, err, toRun)
	})
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func toRun(r *runs.Run) *promptsv1.Run {
	m := &promptsv1.Run{Id: r.ID, HookId: r.HookID, Mode: r.Mode, Trigger: r.Trigger, Status: r.Status, EventType: r.EventType,
		AggregateType: r.AggregateType, AggregateId: r.AggregateID, TemplateVersion: int32(r.TemplateVersion), ProviderId: r.ProviderID, Model: r.Model,
		Input: each(r.Input, toMessage), Output: toJSON(r.Output), Latency: milliseconds(r.Latency), Verdict: r.Verdict, Reason: r.Reason,
		Usage:   &promptsv1.Usage{InputTokens: r.Usage.Input, CachedTokens: r.Usage.Cached, OutputTokens: r.Usage.Output, Cost: r.Cost},
		RuleIds: r.RuleIDs, InjectionSuspected: r.Suspected, Cached: r.Cached, Cause: r.Cause, Error: r.Error, Attempts: int32(r.Attempts),
		CreatedAt: timestamppb.New(r.CreatedAt)}
	if r.EventID != 0 {
		m.EventId = &r.EventID
	}
	if r.Status != runs.Pending {
		m.FinishedAt = timestamppb.New(r.FinishedAt)
	}
	for _, c := range r.ToolCalls {
		m.ToolCalls = append(m.ToolCalls, &promptsv1.ToolCall{Tool: c.Tool, Arguments: toJSON(c.Arguments), Result: toJSON(c.Result), Error: c.Error, Latency: c.Latency})
	}
	return m
}
