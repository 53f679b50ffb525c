package grpcapi

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	auditv1 "github.com/sametick/sametick/proto/gen/go/sametick/audit/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/audit"
)

// Audit serves AuditService.
type Audit struct {
	auditv1.UnimplementedAuditServiceServer
	service *audit.Service
}

// NewAudit makes the server.
func NewAudit(s *audit.Service) *Audit { return &Audit{service: s} }

// GetEntry implements AuditService.
func (s *Audit) GetEntry(ctx context.Context, req *auditv1.GetEntryRequest) (*auditv1.Entry, error) {
	e, err := s.service.Get(ctx, callerOf(ctx).call.OrgID, req.GetId())
	if err != nil {
		return nil, err
	}
	return toEntry(&e), nil
}

// ListEntries implements AuditService.
func (s *Audit) ListEntries(ctx context.Context, req *auditv1.ListEntriesRequest) (*auditv1.ListEntriesResponse, error) {
	page, next, err := s.service.List(ctx, callerOf(ctx).call.OrgID, audit.Filter{AggregateType: req.GetAggregateType(), AggregateID: req.AggregateId,
		ActorID: req.ActorId, Action: req.GetAction(), Outcome: req.GetOutcome(), From: req.GetFrom(), To: req.GetTo(),
		RequestID: req.GetRequestId(), Cursor: req.GetCursor(), Limit: req.Limit, Page: req.Page})
	if err != nil {
		return nil, err
	}
	res := &auditv1.ListEntriesResponse{Total: page.Total, Data: make([]*auditv1.Entry, len(page.Entries))}
	for i := range page.Entries {
		res.Data[i] = toEntry(&page.Entries[i])
	}
	if next != "" {
		res.NextCursor = &next
	}
	return res, nil
}

// ExportEntries implements AuditService.
func (s *Audit) ExportEntries(req *auditv1.ExportEntriesRequest, out grpc.ServerStreamingServer[auditv1.Entry]) error {
	ctx := out.Context()
	return s.service.Export(ctx, callerOf(ctx).call, audit.Filter{AggregateType: req.GetAggregateType(), AggregateID: req.AggregateId,
		ActorID: req.ActorId, Action: req.GetAction(), Outcome: req.GetOutcome(), From: req.GetFrom(), To: req.GetTo(),
		RequestID: req.GetRequestId()}, func(e *audit.Entry) error { return out.Send(toEntry(e)) })
}

// GetHead implements AuditService.
func (s *Audit) GetHead(ctx context.Context, _ *auditv1.GetHeadRequest) (*auditv1.Head, error) {
	signed, size, err := s.service.Head(ctx)
	if err != nil {
		return nil, err
	}
	return &auditv1.Head{Size: size, Head: signed}, nil
}

// GetInclusionProof implements AuditService.
func (s *Audit) GetInclusionProof(ctx context.Context, req *auditv1.GetInclusionProofRequest) (*auditv1.InclusionProof, error) {
	p, err := s.service.Proof(ctx, callerOf(ctx).call.OrgID, req.GetEntryId())
	if err != nil {
		return nil, err
	}
	return &auditv1.InclusionProof{EntryId: req.GetEntryId(), Leaf: p.Leaf, Salt: p.Salt, Hashes: p.Hashes, Head: p.Head}, nil
}

// GetConsistencyProof implements AuditService.
func (s *Audit) GetConsistencyProof(ctx context.Context, req *auditv1.GetConsistencyProofRequest) (*auditv1.ConsistencyProof, error) {
	hashes, err := s.service.Consistency(ctx, req.GetFrom(), req.GetTo())
	if err != nil {
		return nil, err
	}
	return &auditv1.ConsistencyProof{From: req.GetFrom(), To: req.GetTo(), Hashes: hashes}, nil
}

func toEntry(e *audit.Entry) *auditv1.Entry {
	out := &auditv1.Entry{Id: e.ID, OrgId: e.OrgID, ActorId: e.ActorID, Action: e.Action, Outcome: e.Outcome,
		AggregateType: e.AggregateType, AggregateId: e.AggregateID, EventIds: e.EventIDs,
		RequestId: e.RequestID, Ip: e.IP, UserAgent: e.UserAgent, OccurredAt: timestamppb.New(e.OccurredAt)}
	if e.Changes != nil {
		out.Changes = &wirev1.Json{Text: string(e.Changes)}
	}
	return out
}
