// Package schedule decides which endpoints an event goes to, and makes the bodies that are sent. It knows nothing of
// Postgres, HTTP or streams.
//
// A filter that cannot be evaluated must not lose its event unseen. What it reads and the event lacks means no: filters
// are written for one type of event and meet all. Anything else (a text where a number was wanted, more steps than
// allowed) ends the delivery before it begins, with cause "filter": history shows it, and recover sends it.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// What refuses an event.
const (
	ByEventTypes     = "event_types"
	ByAggregateTypes = "aggregate_types"
	ByAggregateIDs   = "aggregate_ids"
	ByFilter         = "filter"
)

// Event is what is matched. It is for one goroutine.
type Event struct {
	EventType, AggregateType string
	AggregateID              int64
	// JSON is the whole event.
	JSON []byte

	parsed *condition.Event
}

func (e *Event) read() (*condition.Event, error) {
	if e.parsed == nil {
		parsed, err := condition.NewEvent(e.JSON)
		if err != nil {
			return nil, err
		}
		e.parsed = parsed
	}
	return e.parsed, nil
}

// Target is an endpoint, ready to be matched. Immutable.
type Target struct {
	*delivery.Endpoint
	patterns []event.Pattern
	filter   *condition.Program
	// fault is why the filter does not compile any more.
	fault error
}

// NewTarget prepares an endpoint. Patterns that are none match nothing: the API refuses them.
func NewTarget(e *delivery.Endpoint, c *condition.Compiler) *Target {
	t := &Target{Endpoint: e}
	for _, text := range e.EventTypes {
		if p, ok := event.ParsePattern(text); ok {
			t.patterns = append(t.patterns, p)
		}
	}
	if e.Filter != "" {
		t.filter, t.fault = c.Compile(e.Filter, condition.Bool)
	}
	return t
}

// subscribes tells whether the endpoint wants events of a type: without patterns, every one that is no pre_* phase.
// A webhook_endpoint.test is for its endpoint alone, see Match's callers.
func (t *Target) subscribes(eventType string) bool {
	if eventType == TestType {
		return false
	}
	if len(t.EventTypes) == 0 {
		_, action, _ := strings.Cut(eventType, ".")
		return !strings.HasPrefix(action, "pre_")
	}
	return slices.ContainsFunc(t.patterns, func(p event.Pattern) bool { return p.Match(eventType) })
}

// TestType is the type of the events that test an endpoint.
var TestType = event.TypeOf(delivery.EndpointType, delivery.ActionTest)

// Match gives what refuses the event, empty when it is wanted. An error says that the filter cannot tell; its text is
// for the endpoint's owner.
func (t *Target) Match(ctx context.Context, e *Event) (refusedBy string, err error) {
	if !t.subscribes(e.EventType) {
		return ByEventTypes, nil
	}
	return t.narrow(ctx, e)
}

// narrow is Match for an endpoint that subscribes to the event's type.
func (t *Target) narrow(ctx context.Context, e *Event) (refusedBy string, err error) {
	switch {
	case len(t.AggregateTypes) > 0 && !slices.Contains(t.AggregateTypes, e.AggregateType):
		return ByAggregateTypes, nil
	case len(t.AggregateIDs) > 0 && !slices.Contains(t.AggregateIDs, e.AggregateID):
		return ByAggregateIDs, nil
	case t.Filter == "":
		return "", nil
	case t.fault != nil:
		return "", t.fault
	}
	parsed, err := e.read()
	if err != nil {
		return "", err
	}
	ok, err := t.filter.Bool(ctx, parsed)
	switch {
	case errors.Is(err, condition.ErrMissing):
		return ByFilter, nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("schedule: %w", ctx.Err())
	case err != nil:
		return "", err
	case !ok:
		return ByFilter, nil
	}
	return "", nil
}

// Replays is Match for an event that is sent again by hand: from whatever position, and also when the filter cannot tell.
func (t *Target) Replays(ctx context.Context, e *Event) bool {
	refused, err := t.Match(ctx, e)
	return refused == "" || err != nil
}

// maxTypes bounds the event types that an Org remembers subscribers of.
const maxTypes = 1000

// Org has the endpoints of an organisation. It is for one goroutine.
type Org struct {
	targets map[int64]*Target
	// subscribers are the open endpoints that subscribe to an event type, by id.
	subscribers map[string][]*Target
}

// NewOrg has no endpoints yet.
func NewOrg() *Org { return &Org{targets: map[int64]*Target{}} }

// Put adds an endpoint, or replaces it by a newer state.
func (o *Org) Put(t *Target) {
	o.targets[t.ID] = t
	o.subscribers = nil
}

// Get gives an endpoint; nil when there is none.
func (o *Org) Get(id int64) *Target { return o.targets[id] }

// Subscribers gives the open endpoints that subscribe to an event type, by id.
func (o *Org) Subscribers(eventType string) []*Target {
	if list, ok := o.subscribers[eventType]; ok {
		return list
	}
	var list []*Target
	for _, t := range o.targets {
		if t.Closed() == "" && t.subscribes(eventType) {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b *Target) int { return int(a.ID - b.ID) })
	if o.subscribers == nil || len(o.subscribers) >= maxTypes {
		o.subscribers = map[string][]*Target{}
	}
	o.subscribers[eventType] = list
	return list
}

// Wants is Match for one of the Subscribers, as of a position: an endpoint gets what comes after its own beginning.
func (t *Target) Wants(ctx context.Context, e *Event, position int64) (bool, error) {
	if t.FromPosition < 0 || position <= t.FromPosition {
		return false, nil
	}
	refused, err := t.narrow(ctx, e)
	return err == nil && refused == "", err
}
