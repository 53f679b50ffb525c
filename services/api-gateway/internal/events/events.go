// Package events has the rules of reading history: which filters there are and what they mean. It
// decides and does not act: the statements live in store, the wire in grpcapi and rest.
package events

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
)

// Query selects events of one organisation. Empty strings and nil select everything.
type Query struct {
	AggregateType, EventType string
	// From and To are exclusive.
	From, To *time.Time
	Page     paging.Page
}

// Store reads history. Totals and pages come from one snapshot.
type Store interface {
	// ListEvents gives one page, newest first, and how many match.
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

// Filter is a query as a caller writes it.
type Filter struct {
	AggregateType, EventType string
	// From and To are ISO 8601, see ParseTime; empty means open.
	From, To    string
	Limit, Page *int32
}

// List gives one page of the organisation's events, newest first, and how many match.
func (s *Service) List(ctx context.Context, orgID int64, f Filter) ([]event.Event, int64, error) {
	q, err := f.query()
	if err != nil {
		return nil, 0, err
	}
	if err := s.checkType(ctx, orgID, q.AggregateType); err != nil {
		return nil, 0, err
	}
	return s.store.ListEvents(ctx, orgID, q)
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
	if isWord(typ) {
		if there, err := s.store.HasType(ctx, orgID, typ); err != nil || there {
			return err
		}
	}
	return fault("aggregate_type", "UNKNOWN_TYPE",
		"one of "+strings.Join(event.Types(), ", ")+", or a type that a producer has recorded")
}

func (f Filter) query() (Query, error) {
	page, err := paging.Standard.Page(f.Limit, f.Page)
	if err != nil {
		return Query{}, err
	}
	q := Query{AggregateType: f.AggregateType, EventType: f.EventType, Page: page}
	if aggregate, action, ok := strings.Cut(f.EventType, "."); f.EventType != "" && (!ok || !isWord(aggregate) || !isWord(action)) {
		return Query{}, fault("event_type", "INVALID_EVENT_TYPE", "a full event type such as task.post_create")
	}
	if q.From, err = bound("from", f.From); err != nil {
		return Query{}, err
	}
	if q.To, err = bound("to", f.To); err != nil {
		return Query{}, err
	}
	if q.From != nil && q.To != nil && q.From.After(*q.To) {
		return Query{}, fault("from", "AFTER_TO", "a time that is not after \"to\"")
	}
	return q, nil
}

func bound(field, text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	t, ok := ParseTime(text)
	if !ok {
		return nil, fault(field, "INVALID_TIME", "ISO 8601: a date (2026-04-12, midnight UTC) or a time with its zone (2026-04-12T14:30:00Z)")
	}
	return &t, nil
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

func isWord(s string) bool {
	ok, err := regexp.MatchString(`^[a-z][a-z0-9_]{0,62}$`, s)
	return err == nil && ok
}

func fault(field, reason, allowed string) error {
	return errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields").WithField(field, reason, allowed)
}
