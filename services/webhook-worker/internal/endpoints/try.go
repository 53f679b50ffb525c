package endpoints

import (
	"context"
	"encoding/json"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/schedule"
)

// Trial is a set of settings to try. Fields that are nil are those of the endpoint, or a new one's.
type Trial struct {
	ID                        *int64
	EventID                   int64
	EventTypes                []string
	Filter, Transform, Format *string
}

// Try tells what an endpoint's settings, or others, make of a past event: what refuses it ("event_types",
// "aggregate_types", "aggregate_ids" or "filter"; empty when it matches), and the body that would be sent. Nothing is.
func (s *Service) Try(ctx context.Context, orgID int64, t Trial) (refusedBy string, body []byte, err error) {
	e := Endpoint{Settings: Settings{Format: delivery.Standard}}
	if t.ID != nil {
		if e, err = s.Get(ctx, orgID, *t.ID); err != nil {
			return "", nil, err
		}
	}
	if len(t.EventTypes) > 0 {
		e.EventTypes = t.EventTypes
	}
	for to, from := range map[*string]*string{&e.Filter: t.Filter, &e.Transform: t.Transform, &e.Format: t.Format} {
		if from != nil {
			*to = *from
		}
	}
	f := &faults{in: func(field string) bool { return field != "url" }}
	f.check(&e.Settings, &s.o.Checks)
	f.id("event_id", t.EventID)
	if err := f.result(); err != nil {
		return "", nil, err
	}
	text, err := s.o.History.Event(ctx, orgID, t.EventID)
	if err != nil {
		return "", nil, err
	}
	return preview(ctx, orgID, &e, t.EventID, text, s.o.Checks.Conditions)
}

func preview(ctx context.Context, orgID int64, e *Endpoint, eventID int64, text []byte, c *condition.Compiler) (refusedBy string, body []byte, err error) {
	text = schedule.Compact(text)
	var about struct {
		EventType     string `json:"event_type"`
		AggregateType string `json:"aggregate_type"`
		AggregateID   int64  `json:"aggregate_id"`
	}
	if err := json.Unmarshal(text, &about); err != nil {
		return "", nil, err
	}
	to := &delivery.Endpoint{OrgID: orgID, ID: e.ID, EventTypes: e.EventTypes, AggregateTypes: e.AggregateTypes, AggregateIDs: e.AggregateIDs,
		Filter: e.Filter, Transform: e.Transform, Format: e.Format}
	failed := func(field string, err error) error {
		f := &faults{}
		f.add(field, "CEL_FAILED", "%s", err)
		return f.result()
	}
	refusedBy, err = schedule.NewTarget(to, c).Match(ctx, &schedule.Event{EventType: about.EventType, AggregateType: about.AggregateType,
		AggregateID: about.AggregateID, JSON: text})
	if err != nil {
		return "", nil, failed("filter", err)
	}
	if refusedBy != "" {
		return refusedBy, nil, nil
	}
	body, err = schedule.Build(ctx, to, &delivery.Delivery{OrgID: orgID, EndpointID: e.ID, EventID: eventID, EventType: about.EventType, Event: text}, c)
	if err != nil {
		return "", nil, failed("transform", err)
	}
	return "", body, nil
}
