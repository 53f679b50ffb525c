package stream

import (
	"context"

	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
)

// NewLog reads the position log through LogService (proto/sametick/relay/v1). Errors are gRPC's own.
func NewLog(c relayv1.LogServiceClient) Log { return grpcLog{c} }

type grpcLog struct{ client relayv1.LogServiceClient }

// Read is LogService.Read.
func (l grpcLog) Read(ctx context.Context, shard int, after int64, limit int, org int64) (Page, error) {
	r, err := l.client.Read(ctx, &relayv1.ReadRequest{
		Shard: int32(shard), After: after, Limit: int32(limit), OrgId: org,
	})
	if err != nil {
		return Page{}, err
	}
	p := Page{Through: r.GetThrough(), Head: r.GetHead(), First: r.GetFirst(), Entries: make([]Entry, len(r.GetEntries()))}
	for i, e := range r.GetEntries() {
		p.Entries[i] = Entry{
			Position: e.GetPosition(), OrgID: e.GetOrgId(), EventType: e.GetEventType(), AggregateType: e.GetAggregateType(),
			AggregateID: e.GetAggregateId(), Traceparent: e.GetTraceparent(), Envelope: e.GetEnvelope(),
		}
	}
	return p, nil
}
