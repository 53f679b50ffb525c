package hub

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
)

// Entry is one event at its position, as far as a stream needs to know it.
type Entry struct {
	Position      int64
	OrgID         int64
	EventType     string
	AggregateType string
	AggregateID   int64
	// Envelope is the event's JSON.
	Envelope []byte
}

// Filter selects events: one passes when it matches one of each kind that is given. The zero value
// lets everything pass. It is not changed once in use.
type Filter struct {
	AggregateTypes []string
	AggregateIDs   []int64
	EventTypes     []event.Pattern
}

// Match tells whether an event passes.
func (f *Filter) Match(eventType, aggregateType string, aggregateID int64) bool {
	return (len(f.AggregateTypes) == 0 || slices.Contains(f.AggregateTypes, aggregateType)) &&
		(len(f.AggregateIDs) == 0 || slices.Contains(f.AggregateIDs, aggregateID)) &&
		(len(f.EventTypes) == 0 || slices.ContainsFunc(f.EventTypes, func(p event.Pattern) bool { return p.Match(eventType) }))
}

// Fields are the names by which a caller of NewFilter gave the values, for its errors.
type Fields struct{ AggregateType, AggregateID, EventType string }

// maxValues bounds each kind of a filter: each costs a comparison an event.
const maxValues = 100

// NewFilter checks what a client asks for. Its error names each faulty field.
func NewFilter(n Fields, aggregateTypes []string, aggregateIDs []int64, eventTypes []string) (Filter, error) {
	f := Filter{AggregateTypes: aggregateTypes, AggregateIDs: aggregateIDs}
	bad := errs.New(errs.Invalid, "INVALID_FILTER", "the filter is invalid")
	for _, t := range aggregateTypes {
		if _, ok := event.ParsePattern(t + ".*"); !ok || strings.Contains(t, "*") {
			bad = bad.WithField(n.AggregateType, "INVALID_TYPE", "an aggregate type such as task")
		}
	}
	for _, id := range aggregateIDs {
		if id <= 0 {
			bad = bad.WithField(n.AggregateID, "OUT_OF_RANGE", "1 or more")
		}
	}
	for _, t := range eventTypes {
		p, ok := event.ParsePattern(t)
		if !ok {
			bad = bad.WithField(n.EventType, "INVALID_PATTERN", "an event type such as task.post_create, or task.*, *.post_create, *")
		}
		f.EventTypes = append(f.EventTypes, p)
	}
	for name, count := range map[string]int{n.AggregateType: len(aggregateTypes), n.AggregateID: len(aggregateIDs), n.EventType: len(eventTypes)} {
		if count > maxValues {
			bad = bad.WithField(name, "TOO_MANY", fmt.Sprintf("at most %d values", maxValues))
		}
	}
	if len(bad.Fields) > 0 {
		return Filter{}, bad
	}
	return f, nil
}
