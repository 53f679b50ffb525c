// Package grpcapi serves this service's gRPC: what is on the wire becomes what the rules know, and back.
package grpcapi

import (
	"context"
	"encoding/json"

	"google.golang.org/grpc"

	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
)

// Reviewer judges writes.
type Reviewer interface {
	Review(ctx context.Context, r review.Request) ([]review.Judgement, error)
}

// Review serves ReviewService. Only the suite itself may call it: rpc.InternalAuth guards it.
type Review struct {
	promptsv1.UnimplementedReviewServiceServer
	Reviewer Reviewer
}

// Register registers the service.
func (s *Review) Register(r grpc.ServiceRegistrar) { promptsv1.RegisterReviewServiceServer(r, s) }

// Review implements promptsv1.ReviewServiceServer.
func (s *Review) Review(ctx context.Context, in *promptsv1.ReviewRequest) (*promptsv1.ReviewResponse, error) {
	r := review.Request{OrgID: in.GetOrgId(), ActorID: in.ActorId, Reserve: in.GetReserve().AsDuration(), Traceparent: in.GetTraceparent(),
		Generation: in.Generation}
	for _, w := range in.GetWrites() {
		r.Writes = append(r.Writes, review.Write{
			EventType: w.GetEventType(), AggregateType: w.GetAggregateType(), AggregateID: w.GetAggregateId(), BaseVersion: w.GetBaseVersion(),
			RecordName: w.GetRecordName(), Before: json.RawMessage(w.GetBefore().GetText()), After: json.RawMessage(w.GetAfter().GetText()),
			Changed: w.GetChanged(), WorkflowID: w.WorkflowId, StepID: w.StepId,
		})
	}
	list, err := s.Reviewer.Review(ctx, r)
	if err != nil {
		return nil, err
	}
	out := &promptsv1.ReviewResponse{}
	for i := range list {
		out.Judgements = append(out.Judgements, judgement(&list[i]))
	}
	return out, nil
}

func judgement(j *review.Judgement) *promptsv1.Judgement {
	out := &promptsv1.Judgement{Rejected: j.Rejected, Hash: j.Hash}
	for i := range j.Verdicts {
		v := &j.Verdicts[i]
		out.Verdicts = append(out.Verdicts, &promptsv1.HookVerdict{
			HookId: v.HookID, HookName: v.HookName, Verdict: v.Verdict, Enforced: v.Enforced, Enforcement: v.Enforcement, Reason: v.Reason,
			RuleIds: v.RuleIDs, RunId: v.RunID, FailedOpen: v.FailedOpen, InjectionSuspected: v.InjectionSuspected,
		})
	}
	return out
}
