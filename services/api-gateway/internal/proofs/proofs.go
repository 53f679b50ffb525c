// Package proofs asks outbox-relay for heads and proofs of the sealed audit log.
package proofs

import (
	"context"

	"github.com/sametick/sametick/pkg/errs"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/audit"
)

// Prover implements audit.Prover. Safe for concurrent use.
type Prover struct{ relay relayv1.AuditLogServiceClient }

// New makes one.
func New(relay relayv1.AuditLogServiceClient) *Prover { return &Prover{relay} }

// Head gives the newest signed head and its size.
func (p *Prover) Head(ctx context.Context) (signed string, size int64, err error) {
	r, err := p.relay.GetAuditHead(ctx, &relayv1.GetAuditHeadRequest{})
	return r.GetHead(), r.GetSize(), fault(err)
}

// Inclusion proves that an entry is in the newest head.
func (p *Prover) Inclusion(ctx context.Context, entryID int64) (audit.Inclusion, error) {
	r, err := p.relay.ProveInclusion(ctx, &relayv1.ProveInclusionRequest{EntryId: entryID})
	return audit.Inclusion{Leaf: r.GetLeaf(), Salt: r.GetSalt(), Hashes: r.GetHashes(), Head: r.GetHead()}, fault(err)
}

// Consistency proves that the log of size to begins with that of size from.
func (p *Prover) Consistency(ctx context.Context, from, to int64) ([]string, error) {
	r, err := p.relay.ProveConsistency(ctx, &relayv1.ProveConsistencyRequest{From: from, To: to})
	return r.GetHashes(), fault(err)
}

// fault passes on what the relay says of the request; that it cannot be reached, or does not
// know us, is not the caller's doing.
func fault(err error) error {
	e := errs.From(err)
	switch {
	case err == nil:
		return nil
	case e.Kind == errs.Invalid || e.Kind == errs.FailedPrecondition || e.Reason == "NOT_SEALED" || e.Kind == errs.Canceled || e.Kind == errs.DeadlineExceeded:
		return e
	default:
		return errs.New(errs.Unavailable, "PROOFS_UNAVAILABLE", "proofs are temporarily unavailable").WithCause(err)
	}
}
