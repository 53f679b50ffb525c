package grpcapi

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/backtest"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// BacktestHook implements promptsv1.PromptServiceServer.
func (s *Prompts) BacktestHook(ctx context.Context, req *promptsv1.BacktestHookRequest) (*promptsv1.Backtest, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Backtest, error) {
		r := backtest.Request{Events: int(req.GetEvents()), ProviderID: req.GetProviderId(), Model: req.GetModel()}
		if b := req.GetBudget(); b != nil {
			r.Budget = prompting.Limits{Runs: b.Runs, Tokens: b.Tokens, Cost: b.Cost}
		}
		b, err := s.Service.Backtest(ctx, call, req.GetId(), int(req.GetTemplateVersion()), r)
		return to(b, err, toBacktest)
	})
}

// GetBacktest implements promptsv1.PromptServiceServer.
func (s *Prompts) GetBacktest(ctx context.Context, req *promptsv1.GetBacktestRequest) (*promptsv1.Backtest, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Backtest, error) {
		b, err := s.Service.GetBacktest(ctx, call.OrgID, req.GetId())
		return to(b, err, toBacktest)
	})
}

// ListBacktests implements promptsv1.PromptServiceServer.
func (s *Prompts) ListBacktests(ctx context.Context, req *promptsv1.ListBacktestsRequest) (*promptsv1.ListBacktestsResponse, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.ListBacktestsResponse, error) {
		list, total, next, err := s.Service.Backtests(ctx, call.OrgID, req.HookId, query(req.Limit, req.GetCursor(), true))
		if err != nil {
			return nil, err
		}
		return &promptsv1.ListBacktestsResponse{Data: each(list, toBacktest), Total: total, NextCursor: next}, nil
	})
}

// CancelBacktest implements promptsv1.PromptServiceServer.
func (s *Prompts) CancelBacktest(ctx context.Context, req *promptsv1.CancelBacktestRequest) (*promptsv1.Backtest, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Backtest, error) {
		b, err := s.Service.CancelBacktest(ctx, call, req.GetId())
		return to(b, err, toBacktest)
	})
}

func toBacktest(b *backtest.Backtest) *promptsv1.Backtest {
	return &promptsv1.Backtest{Id: b.ID, HookId: b.HookID, Mode: b.Settings.Mode, TemplateId: b.TemplateID, TemplateVersion: int32(b.TemplateVersion),
		ProviderId: b.Request.ProviderID, Model: b.Request.Model, Events: int32(b.Request.Events),
		Budget: &promptsv1.Budget{Runs: b.Request.Budget.Runs, Tokens: b.Request.Budget.Tokens, Cost: b.Request.Budget.Cost}, Status: b.Status,
		Error: b.Error, BudgetExhausted: b.Exhausted, Report: toReport(backtest.ReportOf(b.Cases)), CreatedAt: timestamppb.New(b.CreatedAt),
		FinishedAt: stamp(b.FinishedAt)}
}

func toReport(r backtest.Report) *promptsv1.BacktestReport {
	return &promptsv1.BacktestReport{Matched: int32(r.Matched), Done: int32(r.Done), NoBaseline: int32(r.NoBaseline), Failed: int32(r.Failed),
		Failures: each(r.Failures, func(f backtest.Failure) *promptsv1.BacktestFailure {
			return &promptsv1.BacktestFailure{Cause: f.Cause, Count: int32(f.Count)}
		}),
		Matrix: each(r.Matrix, func(c backtest.Cell) *promptsv1.BacktestCell {
			return &promptsv1.BacktestCell{Baseline: c.Baseline, Result: c.Verdict, Count: int32(c.Count)}
		}),
		Flips: each(r.Flips, func(c backtest.Case) *promptsv1.BacktestFlip {
			return &promptsv1.BacktestFlip{EventId: c.EventID, BaselineRunId: c.Result.BaselineRunID, RunId: c.RunID, Baseline: c.Result.Baseline,
				BaselineReason: c.Result.BaselineReason, Result: c.Result.Verdict, Reason: c.Result.Reason}
		}),
		FlipsTotal: int32(r.FlipsTotal), Calls: int32(r.Calls), Unknown: int32(r.Unknown), LatencyP50: milliseconds(r.P50), LatencyP95: milliseconds(r.P95),
		Usage: &promptsv1.Usage{InputTokens: r.Usage.Input, CachedTokens: r.Usage.Cached, OutputTokens: r.Usage.Output, Cost: r.Cost}}
}
