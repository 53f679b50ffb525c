// Package reviewer asks prompt-worker to judge writes: review.Judge over gRPC.
package reviewer

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sametick/sametick/pkg/reviewhash"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
	"github.com/sametick/sametick/services/api-gateway/internal/review"
)

// reserve is what is kept of a call's time for the write itself.
const reserve = 500 * time.Millisecond

// Reviewer implements review.Judge. Safe for concurrent use.
type Reviewer struct {
	client promptsv1.ReviewServiceClient
}

// New makes one on a connection that carries the internal token.
func New(c promptsv1.ReviewServiceClient) *Reviewer { return &Reviewer{client: c} }

func hash(orgID int64, p *review.Proposal) (string, error) {
	return reviewhash.Hash(reviewhash.Write{OrgID: orgID, EventType: p.EventType, AggregateType: p.Type, AggregateID: p.ID,
		BaseVersion: p.BaseVersion, RecordName: p.Name, WorkflowID: p.WorkflowID, StepID: p.StepID, Changed: p.Changed, After: p.After})
}

// Judge implements review.Judge.
func (r *Reviewer) Judge(ctx context.Context, call records.Call, list []review.Proposal) ([]review.Judgement, error) {
	req := &promptsv1.ReviewRequest{OrgId: call.OrgID, ActorId: call.ActorID, Traceparent: call.Traceparent, Reserve: durationpb.New(reserve),
		Generation: call.ReviewSet}
	for i := range list {
		p := &list[i]
		req.Writes = append(req.Writes, &promptsv1.ProposedWrite{EventType: p.EventType, AggregateType: p.Type, AggregateId: p.ID,
			RecordName: p.Name, Before: &wirev1.Json{Text: string(p.Before)}, After: &wirev1.Json{Text: string(p.After)}, Changed: p.Changed,
			BaseVersion: p.BaseVersion, WorkflowId: p.WorkflowID, StepId: p.StepID})
	}
	res, err := r.client.Review(ctx, req)
	if err != nil {
		return nil, err
	}
	if len(res.GetJudgements()) != len(list) {
		return nil, fmt.Errorf("reviewer: %d judgements of %d writes", len(res.GetJudgements()), len(list))
	}
	out := make([]review.Judgement, len(list))
	for i, j := range res.GetJudgements() {
		// What was judged must be what was asked about, and will be written.
		if own, err := hash(call.OrgID, &list[i]); err != nil || own != j.GetHash() {
			return nil, fmt.Errorf("reviewer: write %d was judged as %s, and is %s (%w)", i, j.GetHash(), own, err)
		}
		out[i].Rejected = j.GetRejected()
		for _, v := range j.GetVerdicts() {
			out[i].Verdicts = append(out[i].Verdicts, review.Verdict{HookID: v.GetHookId(), HookName: v.GetHookName(), Verdict: v.GetVerdict(),
				Enforced: v.GetEnforced(), Enforcement: v.GetEnforcement(), Reason: v.GetReason(), RuleIDs: v.GetRuleIds(), RunID: v.GetRunId(),
				FailedOpen: v.GetFailedOpen(), Suspected: v.GetInjectionSuspected()})
		}
	}
	return out, nil
}
