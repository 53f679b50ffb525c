// Package grpcapi serves StreamService (proto/sametick/stream/v1): the event stream over gRPC, with
// the positions and semantics of the one over HTTP.
package grpcapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	eventsv1 "github.com/sametick/sametick/proto/gen/go/sametick/events/v1"
	streamv1 "github.com/sametick/sametick/proto/gen/go/sametick/stream/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
	"github.com/sametick/sametick/services/sse-gateway/internal/resume"
	"github.com/sametick/sametick/services/sse-gateway/internal/sse"
)

// Authorizer tells whose a token is, and that it may read events.
type Authorizer func(ctx context.Context, token string) (auth.Principal, error)

// Server serves StreamService.
type Server struct {
	streamv1.UnimplementedStreamServiceServer
	Streams   *resume.Streams
	Authorize Authorizer
	// SendTimeout ends a stream whose client does not read for so long.
	SendTimeout time.Duration
}

// Register registers the service.
func (s *Server) Register(r grpc.ServiceRegistrar) { streamv1.RegisterStreamServiceServer(r, s) }

// Subscribe streams until the client leaves or its token expires. The first message is a heartbeat
// with the position that the stream continues after.
func (s *Server) Subscribe(r *streamv1.SubscribeRequest, out grpc.ServerStreamingServer[streamv1.SubscribeResponse]) error {
	ctx := out.Context()
	token := auth.Bearer(strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ""))
	if token == "" {
		return auth.ErrMissing()
	}
	p, err := s.Authorize(ctx, token)
	if err != nil {
		return err
	}
	filter, err := hub.NewFilter(hub.Fields{AggregateType: "aggregate_types", AggregateID: "aggregate_ids", EventType: "event_types"},
		r.GetAggregateTypes(), r.GetAggregateIds(), r.GetEventTypes())
	if err != nil {
		return err
	}
	if r.LastPosition != nil && r.GetLastPosition() < 0 {
		return errs.New(errs.Invalid, "INVALID_REQUEST", "the request is invalid").WithField("last_position", "OUT_OF_RANGE", "0 or more")
	}
	accepted, err := s.Streams.Serve(ctx, resume.Request{Org: p.OrgID, Who: sse.IdentityOf(p), Expires: p.ExpiresAt, Filter: filter, Last: r.LastPosition},
		func(cut context.Context) resume.Sink { return &sink{out: out, timeout: s.SendTimeout, cut: cut} })
	if accepted {
		return ended(err)
	}
	return err
}

// ended tells the client why: nothing that reconnecting (with a new token) would not mend.
func ended(err error) error {
	switch {
	case errors.Is(err, resume.ErrExpired):
		return errs.New(errs.Unauthenticated, "TOKEN_EXPIRED", "the access token has expired").WithCause(err)
	case errors.Is(err, resume.ErrDrained):
		return errs.New(errs.Unavailable, "SHUTTING_DOWN", "this replica stops; resume by position").WithCause(err)
	case errors.Is(err, hub.ErrRevoked):
		return hub.ErrRevoked
	case errors.Is(err, resume.ErrSlow), errors.Is(err, resume.ErrStalled):
		return errs.New(errs.ResourceExhausted, "TOO_SLOW", "the stream was read too slowly; resume by position").WithCause(err)
	}
	return err
}

type sink struct {
	out     grpc.ServerStreamingServer[streamv1.SubscribeResponse]
	timeout time.Duration
	cut     context.Context // see resume.Streams.Serve
}

// Begin is a heartbeat with the position.
func (s *sink) Begin(position int64) error { return s.Heartbeat(position, true) }

// Heartbeat sends the position.
func (s *sink) Heartbeat(position int64, _ bool) error {
	return s.send(&streamv1.SubscribeResponse{Kind: &streamv1.SubscribeResponse_Heartbeat{Heartbeat: &streamv1.Heartbeat{Position: position}}})
}

// Reset sends the first position that can still be had.
func (s *sink) Reset(first int64) error {
	return s.send(&streamv1.SubscribeResponse{Kind: &streamv1.SubscribeResponse_Reset_{Reset_: &streamv1.Reset{FirstPosition: first}}})
}

// Send sends one message an event.
func (s *sink) Send(frames []hub.Frame) error {
	messages := make([]*streamv1.SubscribeResponse, len(frames))
	for i, f := range frames {
		e, err := eventOf(f.Envelope())
		if err != nil {
			return fmt.Errorf("event at position %d: %w", f.Position, err)
		}
		messages[i] = &streamv1.SubscribeResponse{Kind: &streamv1.SubscribeResponse_Delivery{Delivery: &streamv1.Delivery{Position: f.Position, Event: e}}}
	}
	return s.send(messages...)
}

// send gives up after the timeout: gRPC's Send has no deadline of its own and waits for the client's
// window. The goroutine that is left behind ends with the stream, which the caller ends next.
func (s *sink) send(messages ...*streamv1.SubscribeResponse) error {
	done := make(chan error, 1)
	go func() {
		for _, m := range messages {
			if err := s.out.Send(m); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	t := time.NewTimer(s.timeout)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return resume.ErrStalled
	case <-s.cut.Done():
		return resume.ErrDrained
	}
}

func eventOf(envelope []byte) (*eventsv1.Event, error) {
	var e struct {
		ID            int64           `json:"id"`
		OrgID         int64           `json:"org_id"`
		AggregateType string          `json:"aggregate_type"`
		AggregateID   int64           `json:"aggregate_id"`
		EventType     string          `json:"event_type"`
		Payload       json.RawMessage `json:"payload"`
		OccurredAt    time.Time       `json:"occurred_at"`
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return nil, err
	}
	return &eventsv1.Event{
		Id: e.ID, OrgId: e.OrgID, AggregateType: e.AggregateType, AggregateId: e.AggregateID, EventType: e.EventType,
		Payload: &wirev1.Json{Text: string(e.Payload)}, OccurredAt: timestamppb.New(e.OccurredAt),
	}, nil
}
