// Package grpcapi serves RelayService and LogService (proto/sametick/relay/v1). Every replica does,
// whether it leads or stands by.
package grpcapi

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	"github.com/sametick/sametick/services/outbox-relay/internal/publish"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

// Relay is what of the running relay is asked for.
type Relay interface {
	Wake()
	Active() bool
}

// Log is the position log.
type Log interface {
	Read(ctx context.Context, shard int, after int64, limit, maxBytes int, org int64) (sequence.Page, error)
	First(ctx context.Context, shard int) (int64, error)
	State(ctx context.Context) (store.State, error)
}

// Streams are looked at for Status.
type Streams interface {
	Tails(ctx context.Context) ([event.Shards]publish.Tail, error)
}

// Server serves both services.
type Server struct {
	relayv1.UnimplementedRelayServiceServer
	relayv1.UnimplementedLogServiceServer
	Relay   Relay
	Log     Log
	Streams Streams
	Version string
}

// Register registers both services.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	relayv1.RegisterRelayServiceServer(r, s)
	relayv1.RegisterLogServiceServer(r, s)
}

// Wake cuts the relay's pause short.
func (s *Server) Wake(context.Context, *relayv1.WakeRequest) (*relayv1.WakeResponse, error) {
	s.Relay.Wake()
	return &relayv1.WakeResponse{}, nil
}

const (
	defaultLimit = 1000
	maxLimit     = 10_000
	// maxBytes of envelopes in an answer: gRPC's usual limit is 4 MiB, and one more event may exceed it alone.
	maxBytes = 2 << 20
	// maxWalks bounds how often one call reads on for an organisation that has few events.
	maxWalks = 5
)

// Read reads the position log.
func (s *Server) Read(ctx context.Context, r *relayv1.ReadRequest) (*relayv1.ReadResponse, error) {
	if err := checkRead(r); err != nil {
		return nil, err
	}
	limit := int(r.GetLimit())
	if limit == 0 {
		limit = defaultLimit
	}
	shard, through := int(r.GetShard()), r.GetAfter()
	out := &relayv1.ReadResponse{}
	if org := r.GetOrgId(); org != 0 && event.ShardOf(org) != shard { // nothing of it is here
		st, err := s.Log.State(ctx)
		if err != nil {
			return nil, err
		}
		out.Head, out.Through = st.Cursor.Positions[shard], max(through, st.Cursor.Positions[shard])
	} else if err := s.walk(ctx, r, limit, out); err != nil {
		return nil, err
	}
	first, err := s.Log.First(ctx, shard)
	out.First = first
	return out, err
}

// walk reads on while an organisation's events are rare, for a bounded while.
func (s *Server) walk(ctx context.Context, r *relayv1.ReadRequest, limit int, out *relayv1.ReadResponse) error {
	out.Through = r.GetAfter()
	for bytes, walks := 0, 0; walks < maxWalks && len(out.GetEntries()) < limit && bytes < maxBytes; walks++ {
		page, err := s.Log.Read(ctx, int(r.GetShard()), out.GetThrough(), limit-len(out.GetEntries()), maxBytes-bytes, r.GetOrgId())
		if err != nil {
			return err
		}
		for i := range page.Events {
			bytes += len(page.Events[i].Envelope)
			out.Entries = append(out.Entries, entry(&page.Events[i]))
		}
		out.Through, out.Head = page.Through, page.Head
		if page.Through >= page.Head {
			return nil
		}
	}
	return nil
}

func checkRead(r *relayv1.ReadRequest) error {
	bad := errs.New(errs.Invalid, "INVALID_READ", "the request is invalid")
	found := false
	check := func(ok bool, field, description string) {
		if !ok {
			bad, found = bad.WithField(field, "OUT_OF_RANGE", description), true
		}
	}
	check(r.GetShard() >= 0 && r.GetShard() < event.Shards, "shard", fmt.Sprintf("is 0 to %d", event.Shards-1))
	check(r.GetAfter() >= 0, "after", "is 0 or more")
	check(r.GetLimit() >= 0 && r.GetLimit() <= maxLimit, "limit", fmt.Sprintf("is 1 to %d, or 0 for %d", maxLimit, defaultLimit))
	check(r.GetOrgId() >= 0, "org_id", "is 0 for all, or an organisation's id")
	if found {
		return bad
	}
	return nil
}

func entry(e *sequence.Event) *relayv1.Entry {
	return &relayv1.Entry{
		Position: e.Position, EventId: e.ID, OrgId: e.OrgID, EventType: e.EventType, AggregateType: e.AggregateType,
		AggregateId: e.AggregateID, Traceparent: e.Traceparent, Envelope: e.Envelope,
	}
}

// Status tells how the relay stands. When Redis does not answer, its figures are 0.
func (s *Server) Status(ctx context.Context, _ *relayv1.StatusRequest) (*relayv1.StatusResponse, error) {
	st, err := s.Log.State(ctx)
	if err != nil {
		return nil, err
	}
	out := &relayv1.StatusResponse{
		Active: s.Relay.Active(), Batch: st.Cursor.Batch, Unsequenced: st.Unsequenced, Version: s.Version,
		PostgresSystemIdentifier: strconv.FormatInt(st.Now.SystemIdentifier, 10), PostgresTimeline: st.Now.Timeline,
	}
	if !st.ClaimedAt.IsZero() {
		out.ClaimedAt = timestamppb.New(st.ClaimedAt)
	}
	tails, err := s.Streams.Tails(ctx)
	if err != nil {
		tails = [event.Shards]publish.Tail{}
	}
	for i, head := range st.Cursor.Positions {
		out.Shards = append(out.Shards, &relayv1.ShardStatus{
			Shard: int32(i), Head: head, StreamLast: tails[i].Last, StreamFirst: tails[i].First,
		})
	}
	for _, c := range st.Consumers {
		if c.Shard >= 0 && c.Shard < event.Shards {
			shard := out.GetShards()[c.Shard]
			shard.Consumers = append(shard.Consumers, &relayv1.ConsumerStatus{Consumer: c.Consumer, Position: c.Position})
		}
	}
	return out, nil
}
