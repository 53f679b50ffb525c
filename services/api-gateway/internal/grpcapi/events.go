package grpcapi

import (
	"context"

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
	return page(s.service.List(ctx, callerOf(ctx).call.OrgID, events.Filter{AggregateType: req.GetAggregateType(),
		EventType: req.GetEventType(), From: req.GetFrom(), To: req.GetTo(), Limit: req.Limit, Page: req.Page}))
}

// ListEntityEvents implements EventService.
func (s *Events) ListEntityEvents(ctx context.Context, req *eventsv1.ListEntityEventsRequest) (*eventsv1.ListEventsResponse, error) {
	return page(s.service.Entity(ctx, callerOf(ctx).call.OrgID, req.GetAggregateType(), req.GetAggregateId(), req.Limit, req.Page))
}

func page(list []event.Event, total int64, err error) (*eventsv1.ListEventsResponse, error) {
	if err != nil {
		return nil, err
	}
	res := &eventsv1.ListEventsResponse{Total: total, Data: make([]*eventsv1.Event, len(list))}
	for i := range list {
		e := &list[i]
		res.Data[i] = &eventsv1.Event{Id: e.ID, OrgId: e.OrgID, AggregateType: e.AggregateType, AggregateId: e.AggregateID,
			EventType: e.EventType, Payload: &wirev1.Json{Text: string(e.Payload)}, OccurredAt: timestamppb.New(e.OccurredAt)}
	}
	return res, nil
}
