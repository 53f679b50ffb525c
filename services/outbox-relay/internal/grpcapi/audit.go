package grpcapi

import (
	"context"

	"github.com/sametick/sametick/pkg/auditlog"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
)

// AuditLog is the sealed log.
type AuditLog interface {
	Head(ctx context.Context) (signed string, size int64, err error)
	Inclusion(ctx context.Context, entryID int64) (auditlog.Inclusion, error)
	Consistency(ctx context.Context, from, to int64) ([]string, error)
}

// Audit serves AuditLogService; a replica without a signing key does too.
type Audit struct {
	relayv1.UnimplementedAuditLogServiceServer
	Log AuditLog
}

// GetAuditHead gives the newest signed head.
func (s *Audit) GetAuditHead(ctx context.Context, _ *relayv1.GetAuditHeadRequest) (*relayv1.GetAuditHeadResponse, error) {
	signed, size, err := s.Log.Head(ctx)
	if err != nil {
		return nil, err
	}
	return &relayv1.GetAuditHeadResponse{Size: size, Head: signed}, nil
}

// ProveInclusion proves that an entry is in the newest head.
func (s *Audit) ProveInclusion(ctx context.Context, r *relayv1.ProveInclusionRequest) (*relayv1.ProveInclusionResponse, error) {
	p, err := s.Log.Inclusion(ctx, r.GetEntryId())
	if err != nil {
		return nil, err
	}
	return &relayv1.ProveInclusionResponse{Leaf: p.Leaf, Salt: p.Salt, Hashes: p.Hashes, Head: p.Head}, nil
}

// ProveConsistency proves that the log has only grown.
func (s *Audit) ProveConsistency(ctx context.Context, r *relayv1.ProveConsistencyRequest) (*relayv1.ProveConsistencyResponse, error) {
	hashes, err := s.Log.Consistency(ctx, r.GetFrom(), r.GetTo())
	if err != nil {
		return nil, err
	}
	return &relayv1.ProveConsistencyResponse{Hashes: hashes}, nil
}
