package grpcapi

import (
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/event"
	eventsv1 "github.com/sametick/sametick/proto/gen/go/sametick/events/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/events"
)

// Events serves EventService.
type Events struct {
	eventsv1.UnimplementedEventServiceServer
	service *events.Service
}

// NewEvents makes the server.
func NewEvents(s *events.Service) *Events { return &Events{service: s} }

// ListEvents implements EventService.
func (s *Events) ListEvents(ctx context.Context, req *eventsv1.ListEventsRequest) (*eventsv1.ListEventsResponse, error) {
	page, err := s.service.List(ctx, callerOf(ctx).call.OrgID, events.Filter{AggregateTypes: filled(req.GetAggregateType()),
		EventTypes: filled(req.GetEventType()), AggregateID: req.AggregateId, ActorID: req.ActorId, From: req.GetFrom(), To: req.GetTo(),
		Order: req.GetOrder(), Cursor: req.GetCursor(), Limit: req.Limit, Page: req.Page})
	if err != nil {
		return nil, err
	}
	res := &eventsv1.ListEventsResponse{Total: page.Total, Data: toEvents(page.Events)}
	if page.Next != "" {
		res.NextCursor = &page.Next
	}
	return res, nil
}

// filled leaves out empty texts: a parameter without a value is none.
func filled(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "" })
}

// ListEntityEvents implements EventService.
func (s *Events) ListEntityEvents(ctx context.Context, req *eventsv1.ListEntityEventsRequest) (*eventsv1.ListEntityEventsResponse, error) {
	list, total, err := s.service.Entity(ctx, callerOf(ctx).call.OrgID, req.GetAggregateType(), req.GetAggregateId(), req.Limit, req.Page)
	if err != nil {
		return nil, err
	}
	return &eventsv1.ListEntityEventsResponse{Total: total, Data: toEvents(list)}, nil
}

func toEvents(list []event.Event) []*eventsv1.Event {
	out := make([]*eventsv1.Event, len(list))
	for i := range list {
		e := &list[i]
		out[i] = &eventsv1.Event{Id: e.ID, OrgId: e.OrgID, AggregateType: e.AggregateType, AggregateId: e.AggregateID,
			EventType: e.EventType, Payload: &wirev1.Json{Text: string(e.Payload)}, OccurredAt: timestamppb.New(e.OccurredAt)}
	}
	return out
}
