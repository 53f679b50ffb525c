// Package events has the rules of reading history: which filters there are and what they mean. It
// decides and does not act: the statements live in store, the wire in grpcapi and rest.
package events

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
)

// Kind is a type of event of a type of aggregate.
type Kind struct{ AggregateType, EventType string }

// Query selects events of one organisation. Nil selects everything.
type Query struct {
	// Types and Events select kinds: an event passes when it matches one of each that is given.
	Types  []string
	Events []event.Pattern
	// AggregateID goes with exactly one of Types.
	AggregateID, ActorID *int64
	// From and To are exclusive.
	From, To *time.Time
	// Ascending is oldest first, by id.
	Ascending bool
	// After is the event that the page comes after, in that order; 0 counts from Page's offset.
	After int64
	Page  paging.Page
}

// Matches tells whether a kind passes.
func (q *Query) Matches(k Kind) bool {
	return (len(q.Types) == 0 || slices.Contains(q.Types, k.AggregateType)) &&
		(len(q.Events) == 0 || slices.ContainsFunc(q.Events, func(p event.Pattern) bool { return p.Match(k.EventType) }))
}

// Store reads history. Totals and pages come from one snapshot.
type Store interface {
	// ListEvents gives one page and how many match.
	ListEvents(ctx context.Context, orgID int64, q Query) ([]event.Event, int64, error)
	// ListEntityEvents gives one page of an entity's events by sequence, and how many it has.
	ListEntityEvents(ctx context.Context, orgID int64, typ string, id int64, p paging.Page) ([]event.Event, int64, error)
	// HasType tells whether the organisation has an event of this type of aggregate.
	HasType(ctx context.Context, orgID int64, typ string) (bool, error)
	// HasRecord tells whether the organisation has this record.
	HasRecord(ctx context.Context, orgID int64, typ string, id int64) (bool, error)
}

// Service answers questions about history. Safe for concurrent use.
type Service struct{ store Store }

// NewService makes a service.
func NewService(s Store) *Service { return &Service{s} }

// Page is one page of events.
type Page struct {
	Events []event.Event
	// Total is how many events match, over all pages.
	Total int64
	// Next is the cursor of what follows; empty at the end.
	Next string
}

// List gives one page of the organisation's events.
func (s *Service) List(ctx context.Context, orgID int64, f Filter) (Page, error) {
	q, err := f.query(orgID)
	if err != nil {
		return Page{}, err
	}
	for _, t := range q.Types {
		if err := s.checkType(ctx, orgID, t); err != nil {
			return Page{}, err
		}
	}
	limit := q.Page.Limit
	q.Page.Limit++ // one more tells whether there is more
	list, total, err := s.store.ListEvents(ctx, orgID, q)
	p := Page{Events: list, Total: total}
	if int64(len(list)) > limit {
		p.Events = list[:limit]
		p.Next = f.cursor(orgID, list[limit-1].ID)
	}
	return p, err
}

// Entity gives one page of one entity's events in the order of their sequence numbers, and how many
// it has. NotFound when the organisation has neither such an entity nor an event of it.
func (s *Service) Entity(ctx context.Context, orgID int64, typ string, id int64, limit, page *int32) ([]event.Event, int64, error) {
	p, err := paging.History.Page(limit, page)
	if err != nil {
		return nil, 0, err
	}
	if err := s.checkType(ctx, orgID, typ); err != nil {
		return nil, 0, err
	}
	list, total, err := s.store.ListEntityEvents(ctx, orgID, typ, id, p)
	if err != nil || total > 0 {
		return list, total, err
	}
	// Retention may have taken all events of an entity that exists.
	there, err := s.store.HasRecord(ctx, orgID, typ, id)
	if err == nil && !there {
		err = errs.New(errs.NotFound, "ENTITY_NOT_FOUND", "there is no such entity, nor an event of it")
	}
	return nil, 0, err
}

// checkType refuses what is neither built in nor a type that a producer of the organisation has used:
// else a slip of the pen looks like an empty history.
func (s *Service) checkType(ctx context.Context, orgID int64, typ string) error {
	if typ == "" || event.IsType(typ) {
		return nil
	}
	if event.IsWord(typ) {
		if there, err := s.store.HasType(ctx, orgID, typ); err != nil || there {
			return err
		}
	}
	return fault("aggregate_type", "UNKNOWN_TYPE",
		"one of "+strings.Join(event.Types(), ", ")+", or a type that a producer has recorded")
}

// ParseTime reads the forms of ISO 8601 that are accepted: a date, which means midnight UTC, or a time
// with its zone. A space in the place of the zone's plus is a plus that was not escaped in a URL.
func ParseTime(s string) (time.Time, bool) {
	if len(s) > len("2006-01-02T15:04:05.000000000+00:00") {
		return time.Time{}, false
	}
	if i := strings.LastIndexByte(s, ' '); i > len("2006-01-02T") {
		s = s[:i] + "+" + s[i+1:]
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05Z0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}
